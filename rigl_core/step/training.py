"""The steps of a sparse training, for adapters whose steps run on the host, such as NumPy, PyTorch and MLX.

An adapter that calls the optimizer itself uses `SparseTraining.take_step`. If the framework calls the optimizer, the
adapter calls `due` before the optimizer's step, then `move` if an update is due, and `advance` at the end.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from rigl_core.arrays.namespace import Array
from rigl_core.inspect.host import is_spread
from rigl_core.inspect.waste import tell_of_waste_in
from rigl_core.model.table import SparsityTable
from rigl_core.model.warnings import SparsityWarning
from rigl_core.plan import Plan
from rigl_core.plan.advice import warn_about
from rigl_core.sparse.layer import ActiveLayer
from rigl_core.step import errors
from rigl_core.step.checkpoint import check_state, make_state
from rigl_core.step.clock import NEVER, Clock
from rigl_core.step.layer import SparseLayer, first_masks, move_layers
from rigl_core.step.refit import refit
from rigl_core.step.workers import two_at_a_time

_L = TypeVar("_L", bound=SparseLayer)


class SparseTraining(ABC, Generic[_L]):
    """The handle of a sparse training, which an adapter's `sparsify` returns.

    Attributes:
        plan: the exact counts.
    """

    def __init__(self, plan: Plan, layers: Mapping[int, _L]) -> None:
        """Make the handle; only adapters do. ``layers`` are those of ``plan.sparse_layers``, by position."""
        self.plan = plan
        self._rule = plan.recipe.rule
        self._layers = layers
        self._clock = Clock(plan.recipe.schedule or NEVER)
        self._refits = self._told_waste = False

    # What users ask.

    @property
    def masks(self) -> dict[str, Array]:
        """Copies of the masks, as bool arrays by layer name, in the layers' shapes.

        Like `table` and `state_dict`, it warns if weights lie outside the masks (P4).
        """
        self.tell_outside()
        return {layer.name: self._mask(i) for i, layer in enumerate(self.plan.layers)}

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""
        return int(self._clock.step)

    @property
    def table(self) -> SparsityTable:
        """Density, active and zero weights of each layer.

        After updates it warns, once, if many outputs of the layers have no active connection.
        """
        self.tell_outside()
        if self.step and not self._told_waste:
            self._told_waste = tell_of_waste_in(self.plan, self._masks_here())
        active = [layer.size for layer in self.plan.layers]
        for i, layer in self._layers.items():
            active[i] = layer.active
        return SparsityTable(self.plan.layers, tuple(active))

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs besides the parameters and the optimizer's state."""
        layers = self._layers.values()
        remembered = {
            kind: {layer.layer.name: self._copy(layer.memory[kind]) for layer in layers} for kind in self._rule.memories
        }
        return make_state(self.plan, self._clock, self.masks, remembered)

    def load_state_dict(self, state: Mapping[str, Any], *, changed: Collection[str] = ()) -> None:
        """Continue from a result of `state_dict`.

        Args:
            state: the saved state.
            changed: fields of the recipe that were changed on purpose since it was saved, such as ``["schedule"]``. If
                the plan has other counts now, the next step first brings the masks to them.

        Raises:
            TypeError, ValueError: if the state belongs to another recipe or other layers; nothing is changed then.
        """
        check_state(self.plan, state, changed)
        self._refits = bool(changed)
        self._clock = replace(self._clock, step=state["step"], deferred=state["deferred"])
        for layer in self._layers.values():
            name = layer.layer.name
            remembered = {kind: self._array(arrays[name]) for kind, arrays in state["memory"].items()}
            layer.resume(layer.flat(self._array(state["masks"][name])), remembered)

    # What an adapter gives.

    @abstractmethod
    def _mask(self, position: int) -> Array:
        """A copy of a layer's mask, in the layer's shape; all true for a dense layer."""

    @abstractmethod
    def _array(self, saved: Any) -> Array:
        """A copy of a saved or given array, as an array of the framework."""

    @abstractmethod
    def _copy(self, array: Array) -> Array:
        """A copy of an array of the framework."""

    def _may_use_threads(self) -> bool:
        """Whether two threads can update two pools at the same time."""
        return True

    # What an adapter calls.

    def start(self, scores: Mapping[str, Any] | None) -> None:
        """Choose the initial topology, by the scores if the recipe reads them, and zero the weights outside it."""
        warn_about(self.plan)
        given: dict[str, Array] = {}
        masked = {i: layer for i, layer in self._layers.items() if not isinstance(layer, ActiveLayer)}
        if scores is not None:
            names = [(layer, layer.layer.name) for layer in masked.values()]
            given = {name: layer.flat(self._array(scores[name])) for layer, name in names}
        for position, mask in first_masks(self.plan, masked, given).items():
            layer = self._layers[position]
            layer.start(layer.at_start(), layer.bring(mask))
        for layer in self._layers.values():
            if isinstance(layer, ActiveLayer):
                layer.begin()

    @property
    def reads_gradients(self) -> bool:
        """Whether the coming step reads dense gradients."""
        return self._rule.reads_every_gradient or (self._clock.due and self._rule.reads_gradient)

    def take_step(
        self, gradients: Mapping[int, Array], gradient_step: Callable[[], None], *, finite: Callable[[], bool]
    ) -> None:
        """One step: a gradient step, an update in its place, or both.

        Args:
            gradients: the dense gradients, flat, by the layers' positions; layers that were not used have none.
            gradient_step: lets the optimizer make its step.
            finite: says whether all gradients of the step are finite, including those of dense parameters.
        """
        update = self.due(gradients, finite=finite)
        if update is None or self._rule.on_update == "after":
            gradient_step()
        if update is not None:
            self.move(update, gradients)
        self.advance(update)

    def due(self, gradients: Mapping[int, Array], *, finite: Callable[[], bool]) -> int | None:
        """The number of the update to make at the coming step, or None; also updates the layers' memory.

        An update that reads gradients waits if they are not finite. Arguments are those of `take_step`.
        """
        self._refit()
        due = self._clock.due and (not self._rule.reads_gradient or (finite() and self._prepare(gradients)))
        for i, layer in self._layers.items():
            layer.observe(gradients.get(i))
        return int(self._clock.update) if due else None

    def move(self, update: int, gradients: Mapping[int, Array]) -> None:
        """Make an update in every pool."""

        def move_pool(number: int) -> None:
            self._move_pool(update, number, gradients)

        numbers = range(len(self.plan.pools))
        if self._may_use_threads():
            two_at_a_time(move_pool, numbers, self.plan.pool_size)
        else:
            for number in numbers:
                move_pool(number)

    def _masks_here(self) -> dict[str, Array]:
        """The masks of layers that have whole ones: nobody gathers shards, or makes a mask, for a warning."""
        masked = [i for i, layer in self._layers.items() if not isinstance(layer, ActiveLayer)]
        masks = {self.plan.layers[i].name: self._mask(i) for i in masked}
        return {name: mask for name, mask in masks.items() if not is_spread(mask)}

    def tell_outside(self) -> None:
        """Warn if weights lie outside the masks."""
        counts = {layer.layer.name: layer.outside for layer in self._layers.values()}
        if any(counts.values()):
            warnings.warn(errors.weights_outside(counts), SparsityWarning, stacklevel=3)

    def _prepare(self, gradients: Mapping[int, Any]) -> bool:
        """Let layers read what they read once, and say whether that is finite."""
        update = int(self._clock.update)
        pools = [(number, self._layers[pool[0]], pool[0]) for number, pool in enumerate(self.plan.pools)]
        return all(
            layer.prepare(update, gradients.get(position), self.plan.counts(update, number))
            for number, layer, position in pools
            if isinstance(layer, ActiveLayer)
        )

    def _refit(self) -> None:
        """Before a step: bring masks that were loaded under another budget to the plan's counts."""
        if self._refits:
            self._refits = False
            refit(self.plan, self._layers, self.step)

    def advance(self, update: int | None) -> None:
        """End the step; ``update`` is the update that was made, or None."""
        self._clock = self._clock.next(waits=self._clock.due and update is None)

    def _move_pool(self, update: int, number: int, gradients: Mapping[int, Array]) -> None:
        """Make an update in one pool, unless none of its layers was used: layers without a gradient stay (T6)."""
        pool = self.plan.pools[number]
        if not any(position in gradients for position in pool):
            return
        layers, counts = [self._layers[i] for i in pool], self.plan.counts(update, number)
        if self._rule.redistribution is not None:
            counts = replace(counts, digits=layers[0].bring(self._array(counts.digits)))
        if len(layers) == 1:
            layers[0].move(update, gradients[pool[0]], counts)
        else:
            move_layers(layers, update, [gradients.get(i) for i in pool], counts)
