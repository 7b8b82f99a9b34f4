"""A sparse training in NumPy: the optimizer's ``step(grads)`` follows a topology that learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.optimizers import Gradients, Optimizer
from rigl_backends.numpy.sparse_layer import SparseLayer
from rigl_core.arrays.namespace import numpy_namespace as xp
from rigl_core.arrays.random import INITIAL
from rigl_core.model.table import SparsityTable
from rigl_core.plan import Plan
from rigl_core.step import errors
from rigl_core.step.checkpoint import check_state, make_state
from rigl_core.step.clock import Clock
from rigl_core.step.selection import all_finite, two_at_a_time
from rigl_core.step.update import Counts, initial_masks, move_pool

Array = npt.NDArray[Any]


class SparseTraining:
    """The handle of a sparse training, made by `sparsify`.

    Attributes:
        plan: the exact counts.
    """

    def __init__(self, plan: Plan, optimizer: Optimizer, scores: Mapping[str, Array] | None = None) -> None:
        self.plan = plan
        self._optimizer = optimizer
        self._clock = Clock(plan.recipe.schedule)
        self._layers = {i: SparseLayer(plan.layers[i], plan.recipe, optimizer) for i in plan.sparse_layers}
        for pool in plan.pools:
            self._start(pool, scores or {})
        optimizer.step = self._step  # type: ignore[method-assign]

    @property
    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Copies of the masks, by layer name, in the layers' shapes."""
        return {
            layer.name: self._layers[i].mask.copy() if i in self._layers else np.ones(layer.shape, np.bool_)
            for i, layer in enumerate(self.plan.layers)
        }

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""
        return self._clock.step

    @property
    def table(self) -> SparsityTable:
        """Density, active and zero weights of each layer."""
        active = tuple(int(np.count_nonzero(mask)) for mask in self.masks.values())
        return SparsityTable(self.plan.layers, active)

    def mask_gradients(self, grads: Gradients) -> dict[str, Array | None]:
        """The gradients as a truly sparse network has them; dense at a step that reads dense ones."""
        return dict(grads) if self._step_reads_gradients() else self._masked(grads)

    def remove(self) -> None:
        """Give the optimizer its own ``step`` back; the weights stay sparse until it changes them."""
        vars(self._optimizer).pop("step", None)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs besides the arrays and the optimizer's state."""
        memory = {
            kind: {layer.name: layer.memory[kind].copy() for layer in self._layers.values()}
            for kind in self.plan.recipe.memories
        }
        return make_state(self.plan, self._clock, self.masks, memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Raises:
            ValueError: if the state is of another recipe or other layers; nothing has been changed then.
        """
        check_state(self.plan, state)
        self._clock.step, self._clock.deferred = state["step"], state["deferred"]
        for layer in self._layers.values():
            layer.memory = {kind: np.array(arrays[layer.name]) for kind, arrays in state["memory"].items()}
            layer.set_mask(np.array(state["masks"][layer.name]))

    def _start(self, pool: Sequence[int], scores: Mapping[str, Array]) -> None:
        recipe, layers = self.plan.recipe, [self._layers[i] for i in pool]
        draws = recipe.initial.reads_random or "sign" in recipe.memories
        connections = [layer.connections(INITIAL, indices=draws, scores=scores.get(layer.name)) for layer in layers]
        masks = initial_masks(recipe, connections, [self.plan.initial_active[i] for i in pool], xp=xp)
        for layer, own, mask in zip(layers, connections, masks, strict=True):
            layer.start(own, mask)

    def _step_reads_gradients(self) -> bool:
        recipe = self.plan.recipe
        return recipe.reads_every_gradient or (self._clock.due is not None and recipe.reads_gradient)

    def _step(self, grads: Gradients) -> None:
        self._check_shapes(grads)
        recipe, update = self.plan.recipe, self._clock.due
        if update is not None and recipe.reads_gradient and not _all_finite(grads):
            self._clock.defer()
            update = None
        for layer in self._layers.values():
            layer.observe(grads.get(layer.name))
        if update is None or recipe.on_update == "after":
            self._gradient_step(grads)
        if update is not None:
            pools = range(len(self.plan.pools))
            two_at_a_time(lambda number: self._move(number, update, grads), pools, self.plan.pool_size)
        self._clock.advance(updated=update is not None)

    def _gradient_step(self, grads: Gradients) -> None:
        for layer in self._layers.values():
            layer.show_shadow()
        type(self._optimizer).step(self._optimizer, self._for_optimizer(grads))
        for layer in self._layers.values():
            layer.hide_shadow()

    def _for_optimizer(self, grads: Gradients) -> dict[str, Array | None]:
        if "shadow" in self.plan.recipe.memories:
            return dict(grads)
        masked = self._masked(grads)
        if self.plan.recipe.changes_gradient:
            for layer in self._layers.values():
                grad = masked.get(layer.name)
                masked[layer.name] = None if grad is None else layer.noisy(grad, self._clock.step)
        return masked

    def _move(self, number: int, update: int, grads: Gradients) -> None:
        """One pool's topology update; a layer on its own that was not used, and so has no gradient, keeps its own."""
        recipe, row, pool = self.plan.recipe, self.plan.row(update), self.plan.pools[number]
        layers = [self._layers[i] for i in pool]
        if recipe.reads_gradient and len(pool) == 1 and grads.get(layers[0].name) is None:
            return
        connections = [
            layer.connections(update, grads.get(layer.name), indices=recipe.reads_random) for layer in layers
        ]
        counts = Counts(
            int(self.plan.keep_counts[row, number]), int(self.plan.grow_counts[row, number]), self.plan.digits[row]
        )
        moved = move_pool(recipe, connections, [layer.mask.reshape(-1) for layer in layers], counts, xp=xp)
        for layer, own, new in zip(layers, connections, moved, strict=True):
            layer.move_to(own, new)

    def _masked(self, grads: Gradients) -> dict[str, Array | None]:
        masked = dict(grads)
        for layer in self._layers.values():
            grad = masked.get(layer.name)
            if grad is not None:
                masked[layer.name] = np.where(layer.mask, grad, np.zeros_like(grad))
        return masked

    def _check_shapes(self, grads: Gradients) -> None:
        for layer in self.plan.layers:
            for kind, array in (("parameter", self._optimizer.params[layer.name]), ("gradient", grads.get(layer.name))):
                if array is not None and array.shape != layer.shape:
                    raise errors.wrong_shape(layer, kind, array.shape)


def _all_finite(grads: Gradients) -> bool:
    return all_finite(grad for grad in grads.values() if grad is not None)
