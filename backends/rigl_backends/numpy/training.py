"""A sparse training in NumPy: the optimizer's ``step(grads)`` follows a topology that learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.optimizers import Gradients, Optimizer
from rigl_core import errors
from rigl_core.checkpoint import check_state, make_state
from rigl_core.clock import Clock
from rigl_core.criteria import Connections
from rigl_core.inspect import SparsityTable
from rigl_core.layers import Layer
from rigl_core.namespace import numpy_namespace as xp
from rigl_core.plan import Plan
from rigl_core.random import INITIAL, random_key
from rigl_core.selection import two_at_a_time, zero_outside

Array = npt.NDArray[Any]


class SparseTraining:
    """The handle of a sparse training, made by `sparsify`.

    Attributes:
        plan: the exact counts.
    """

    def __init__(self, plan: Plan, optimizer: Optimizer) -> None:
        self.plan = plan
        self._optimizer = optimizer
        self._clock = Clock(plan.recipe.schedule)
        self._masks = self._initial_masks()
        for name, mask in self._masks.items():
            self._keep(name, mask, mask)
        optimizer.step = self._step  # type: ignore[method-assign]

    @property
    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Copies of the masks, by layer name, in the layers' shapes."""
        return {name: mask.copy() for name, mask in self._masks.items()}

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""
        return self._clock.step

    @property
    def table(self) -> SparsityTable:
        """Density, active and zero weights of each layer."""
        active = tuple(int(np.count_nonzero(mask)) for mask in self._masks.values())
        return SparsityTable(self.plan.layers, active)

    def mask_gradients(self, grads: Gradients) -> dict[str, Array | None]:
        """The gradients as a truly sparse network has them; dense at a step whose update reads them."""
        if self._clock.due is not None and self.plan.recipe.reads_gradient:
            return dict(grads)
        return self._masked(grads)

    def remove(self) -> None:
        """Give the optimizer its own ``step`` back; the weights stay sparse until it changes them."""
        vars(self._optimizer).pop("step", None)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs besides the arrays and the optimizer's state."""
        return make_state(self.plan, self._clock, self.masks)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Raises:
            ValueError: if the state is of another recipe or other layers; nothing has been changed then.
        """
        check_state(self.plan, state)
        self._clock.step, self._clock.deferred = state["step"], state["deferred"]
        for layer in self.plan.layers:
            mask = np.array(state["masks"][layer.name])
            self._masks[layer.name] = mask
            self._keep(layer.name, mask, mask)

    def _step(self, grads: Gradients) -> None:
        self._check_shapes(grads)
        recipe, update = self.plan.recipe, self._clock.due
        if update is not None and recipe.reads_gradient and not _all_finite(grads):
            self._clock.defer()
            update = None
        if update is None or recipe.on_update == "after":
            type(self._optimizer).step(self._optimizer, self._masked(grads))
            for layer in self.plan.layers:
                zero_outside(self._optimizer.params[layer.name], self._masks[layer.name])
        if update is not None:
            two_at_a_time(
                lambda position: self._move(position, update, grads.get(self.plan.layers[position].name)),
                self.plan.sparse_layers,
            )
        self._clock.advance(updated=update is not None)

    def _move(self, position: int, update: int, grad: Array | None) -> None:
        """One layer's topology update; a layer that was not used, and so has no gradient, keeps its own."""
        layer, recipe = self.plan.layers[position], self.plan.recipe
        if grad is None and recipe.reads_gradient:
            return
        drop_count = int(self.plan.drop_counts[update, position])
        old = self._masks[layer.name]
        new = recipe.updated_mask(
            self._connections(layer, update, grad, indices=recipe.reads_random),
            old.reshape(-1),
            self.plan.active[position] - drop_count,
            drop_count,
            xp=xp,
        ).reshape(layer.shape)
        self._masks[layer.name] = new
        self._keep(layer.name, old, new)

    def _connections(self, layer: Layer, update: int, grad: Array | None, *, indices: bool) -> Connections:
        return Connections(
            weight=self._optimizer.params[layer.name].reshape(-1),
            gradient=None if grad is None else grad.reshape(-1),
            indices=np.arange(layer.size, dtype=np.int32) if indices else None,
            random_key=random_key(self.plan.recipe.seed, layer.name, update),
        )

    def _initial_masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        masks, initial = {}, self.plan.recipe.initial
        for layer, active in zip(self.plan.layers, self.plan.active, strict=True):
            connections = self._connections(layer, INITIAL, None, indices=initial.reads_random)
            mask = self.plan.recipe.initial_mask(connections, active, xp=xp)
            masks[layer.name] = mask.reshape(layer.shape)
        return masks

    def _keep(self, name: str, old: Array, new: Array) -> None:
        """Zero the weights and per-weight optimizer state of one layer, but for its survivors."""
        param = self._optimizer.params[name]
        per_weight = [x for x in self._optimizer.state[name].values() if np.shape(x) == param.shape]
        survivors = old & new
        for values in [param, *per_weight]:
            zero_outside(values, survivors)

    def _masked(self, grads: Gradients) -> dict[str, Array | None]:
        masked = dict(grads)
        for name, mask in self._masks.items():
            grad = masked.get(name)
            if grad is not None:
                masked[name] = np.where(mask, grad, np.zeros_like(grad))
        return masked

    def _check_shapes(self, grads: Gradients) -> None:
        for layer in self.plan.layers:
            for kind, array in (("parameter", self._optimizer.params[layer.name]), ("gradient", grads.get(layer.name))):
                if array is not None and array.shape != layer.shape:
                    raise errors.wrong_shape(layer, kind, array.shape)


def _all_finite(grads: Gradients) -> bool:
    return all(np.isfinite(grad).all() for grad in grads.values() if grad is not None)
