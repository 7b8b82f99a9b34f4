"""A sparse training in NumPy: the optimizer's ``step(grads)`` follows a topology that learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.active import ActiveLayer, SparseLinear
from rigl_backends.numpy.active_conv import SparseConv
from rigl_backends.numpy.layer import SparseLayer
from rigl_backends.numpy.optimizers import Gradients, Optimizer
from rigl_backends.numpy.state import keeps_zeros
from rigl_core import adapter
from rigl_core.adapter import Index, Plan, all_finite, errors

Array = npt.NDArray[Any]
Change = Callable[["SparseLayer | ActiveLayer", Array], Array]


class SparseTraining(adapter.SparseTraining["SparseLayer | ActiveLayer"]):
    """The handle of a sparse training, made by `sparsify`.

    Attributes:
        plan: the exact counts.
        linear: the products of the matrices that hold only their active weights, by name.
        conv: those of the convolutions.
    """

    def __init__(
        self,
        plan: Plan,
        optimizer: Optimizer,
        scores: Mapping[str, Array] | None = None,
        indices: Mapping[int, Index] = MappingProxyType({}),
        drawn: Mapping[int, npt.NDArray[np.float32]] = MappingProxyType({}),
    ) -> None:
        """Make the handle; only `sparsify` does.

        Args:
            plan: the plan of the training.
            optimizer: as given to `sparsify`.
            scores: as given to `sparsify`.
            indices: of the layers to hold as active weights, by position.
            drawn: the initial values of those that have no dense array.
        """
        self._masked = {
            i: SparseLayer(plan.layers[i], plan.recipe, optimizer) for i in plan.sparse_layers if i not in indices
        }
        self._active = {
            i: ActiveLayer(plan.layers[i], plan.recipe, own, optimizer, drawn.get(i)) for i, own in indices.items()
        }
        super().__init__(plan, {**self._masked, **self._active})
        self._optimizer = optimizer
        self.start(scores)
        active = {layer.layer.name: layer for layer in self._active.values()}
        self.linear = {name: SparseLinear(own) for name, own in active.items() if len(own.layer.shape) == 2}
        self.conv = {name: SparseConv(own) for name, own in active.items() if name not in self.linear}
        optimizer.step = self._step  # type: ignore[method-assign]

    def mask_gradients(self, grads: Gradients) -> dict[str, Any]:
        """The gradients as a truly sparse network has them; dense at a step that reads dense ones."""
        return dict(grads) if self.reads_gradients else self._changed(grads, _zero_outside)

    def remove(self) -> None:
        """Give the optimizer its own ``step`` back; the weights stay sparse until it changes them."""
        vars(self._optimizer).pop("step", None)

    def _step(self, grads: Gradients) -> None:
        self._check_shapes(grads)
        self.tell_outside()
        given: dict[str, Any] = {name: gradient for name, gradient in grads.items() if gradient is not None}
        known: dict[int, Any] = {
            i: given[layer.layer.name].reshape(-1) for i, layer in self._masked.items() if layer.layer.name in given
        }
        for i, layer in self._active.items():
            if (name := layer.layer.name) in given:
                known[i] = given[name] = layer.gradient(given[name])
        self.take_step(known, lambda: self._gradient_step(given), finite=lambda: _all_finite(given))

    def _gradient_step(self, grads: Mapping[str, Any]) -> None:
        for layer in self._layers.values():
            layer.show_shadow()
        shown = (
            grads if self._rule.shadow else self._changed(grads, lambda one, grad: one.for_optimizer(grad, self.step))
        )
        type(self._optimizer).step(self._optimizer, shown)
        for layer in self._masked.values():
            layer.hide_shadow()
            if keeps_zeros(self._optimizer):
                layer.zero_weight_outside(layer.mask)
            else:
                layer.zero_what_is_outside()

    def _changed(self, grads: Mapping[str, Any], change: Change) -> dict[str, Any]:
        """The gradients, with those of the sparse layers changed; of active weights, if a layer holds no others."""
        changed = dict(grads)
        for layer in self._masked.values():
            if (grad := grads.get(layer.layer.name)) is not None:
                changed[layer.layer.name] = change(layer, grad.reshape(-1)).reshape(grad.shape)
        for own in self._active.values():
            if (grad := grads.get(own.layer.name)) is not None:
                changed[own.layer.name] = change(own, own.gradient(grad).active)
        return changed

    def _check_shapes(self, grads: Gradients) -> None:
        for layer in self._active.values():
            layer.check()
        for i, one in enumerate(self.plan.layers):
            if i in self._active:
                continue
            for kind, array in (("parameter", self._optimizer.params[one.name]), ("gradient", grads.get(one.name))):
                if array is not None and array.shape != one.shape:
                    raise errors.wrong_shape(one, kind, array.shape)

    def _mask(self, position: int) -> npt.NDArray[np.bool_]:
        shape = self.plan.layers[position].shape
        sparse = position in self._layers
        return self._layers[position].mask.reshape(shape).copy() if sparse else np.ones(shape, np.bool_)

    def _array(self, saved: Any) -> Array:
        return np.array(saved)

    def _copy(self, array: Array) -> Array:
        return array.copy()


def _zero_outside(layer: SparseLayer | ActiveLayer, gradient: Array) -> Array:
    zeroed: Array = layer.zero_outside(gradient)
    return zeroed


def _all_finite(grads: Mapping[str, Any]) -> bool:
    """Whether all gradients are; of active weights alone, where an update reads the others block by block."""
    return all_finite(grad if isinstance(grad, np.ndarray) else grad.active for grad in grads.values())
