"""A sparse training in NumPy: the optimizer's ``step(grads)`` follows a topology that learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.layer import SparseLayer
from rigl_backends.numpy.optimizers import Gradients, Optimizer
from rigl_backends.numpy.state import keeps_zeros
from rigl_core import adapter
from rigl_core.adapter import Plan, all_finite, errors

Array = npt.NDArray[Any]


class SparseTraining(adapter.SparseTraining[SparseLayer]):
    """The handle of a sparse training, made by `sparsify`.

    Attributes:
        plan: the exact counts.
    """

    def __init__(self, plan: Plan, optimizer: Optimizer, scores: Mapping[str, Array] | None = None) -> None:
        layers = {i: SparseLayer(plan.layers[i], plan.recipe, optimizer) for i in plan.sparse_layers}
        super().__init__(plan, layers)
        self._optimizer = optimizer
        self.start(scores)
        optimizer.step = self._step  # type: ignore[method-assign]

    def mask_gradients(self, grads: Gradients) -> dict[str, Array | None]:
        """The gradients as a truly sparse network has them; dense at a step that reads dense ones."""
        return dict(grads) if self.reads_gradients else self._changed(grads, SparseLayer.zero_outside)

    def remove(self) -> None:
        """Give the optimizer its own ``step`` back; the weights stay sparse until it changes them."""
        vars(self._optimizer).pop("step", None)

    def _step(self, grads: Gradients) -> None:
        self._check_shapes(grads)
        self.tell_outside()
        dense = {i: grads.get(layer.layer.name) for i, layer in self._layers.items()}
        flat = {i: grad.reshape(-1) for i, grad in dense.items() if grad is not None}
        self.take_step(flat, lambda: self._gradient_step(grads), finite=lambda: _all_finite(grads))

    def _gradient_step(self, grads: Gradients) -> None:
        for layer in self._layers.values():
            layer.show_shadow()
        shown = (
            grads if self._rule.shadow else self._changed(grads, lambda one, grad: one.for_optimizer(grad, self.step))
        )
        type(self._optimizer).step(self._optimizer, shown)
        for layer in self._layers.values():
            layer.hide_shadow()
            if keeps_zeros(self._optimizer):
                layer.zero_weight_outside(layer.mask)
            else:
                layer.zero_what_is_outside()

    def _changed(self, grads: Gradients, change: Callable[[SparseLayer, Array], Array]) -> dict[str, Array | None]:
        """The gradients, with those of the sparse layers changed."""
        changed = dict(grads)
        for layer in self._layers.values():
            if (grad := grads.get(layer.layer.name)) is not None:
                changed[layer.layer.name] = change(layer, grad.reshape(-1)).reshape(grad.shape)
        return changed

    def _check_shapes(self, grads: Gradients) -> None:
        for layer in self.plan.layers:
            for kind, array in (("parameter", self._optimizer.params[layer.name]), ("gradient", grads.get(layer.name))):
                if array is not None and array.shape != layer.shape:
                    raise errors.wrong_shape(layer, kind, array.shape)

    def _mask(self, position: int) -> npt.NDArray[np.bool_]:
        shape = self.plan.layers[position].shape
        sparse = position in self._layers
        return self._layers[position].mask.reshape(shape).copy() if sparse else np.ones(shape, np.bool_)

    def _array(self, saved: Any) -> Array:
        return np.array(saved)

    def _copy(self, array: Array) -> Array:
        return array.copy()


def _all_finite(grads: Gradients) -> bool:
    return all_finite(grad for grad in grads.values() if grad is not None)
