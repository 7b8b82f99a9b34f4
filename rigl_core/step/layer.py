"""A layer in a sparse training, and the work of a step on it, for any framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from rigl_core.arrays import memory
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace, count
from rigl_core.arrays.noise import GRADIENT_NOISE, noisy_gradient
from rigl_core.arrays.random import INITIAL, random_key
from rigl_core.model.layers import Layer
from rigl_core.plan import Counts, Plan
from rigl_core.recipe import Recipe
from rigl_core.step.update import Updated, initial_masks, move_pool, weights_after


class SparseLayer(ABC):
    """A layer and its topology. An adapter's subclass says where the arrays are. All arrays are flat.

    Attributes:
        xp: the namespace of the arrays.
        layer: the layer's description.
        rule: the part of the recipe that a step reads.
        weight: the weights, 0 outside the mask; between `show_shadow` and `hide_shadow` also those that learn outside.
        mask: bool array, the topology.
        memory: the method's memory of each connection, by kind (`rigl_core.arrays.memory`).
    """

    xp: Namespace
    weight: Array
    mask: Array
    memory: dict[str, Array]

    def __init__(self, layer: Layer, recipe: Recipe) -> None:
        self.layer, self.rule, self._seed = layer, recipe.rule, recipe.seed

    # Where the arrays are.

    @abstractmethod
    def indices(self) -> Array:
        """The int32 flat indices of all connections."""

    @abstractmethod
    def zero_state_outside(self, mask: Array) -> None:
        """Give all weights outside a mask the optimizer state of new weights, which is zero in most optimizers."""

    def zero_weight_outside(self, mask: Array) -> None:
        """Set the weights outside a mask to zero. An adapter whose arrays can change does it in place."""
        self.weight = self._zero_outside(mask, self.weight)

    def zero_what_is_outside(self) -> None:
        """Zero the weights outside the mask, and make their optimizer state that of new weights unless they learn."""
        self.zero_weight_outside(self.mask)
        if not self.rule.shadow:
            self.zero_state_outside(self.mask)

    def flat(self, array: Array) -> Array:
        """An array of the layer's shape as the core sees it."""
        return self.xp.reshape(array, (-1,))

    def bring(self, array: Array) -> Array:
        """An array, or a number, of another layer of the pool, moved to this layer's device."""
        return array

    def random_key(self, update: Any) -> tuple[Array, Array]:
        """The random key of an update. Its number may be traced if the adapter looks keys up in a table."""
        return random_key(self._seed, self.layer.name, update)

    @property
    def active(self) -> int:
        """The number of active connections."""
        return int(count(self.mask, xp=self.xp)[0])

    @property
    def outside(self) -> int:
        """The number of weights outside the mask that are not 0."""
        return int(count((self.weight != 0) & ~self.mask, xp=self.xp)[0])

    # What a step does.

    @property
    def whole_weight(self) -> Array:
        """The weights inside the mask and, with shadow weights, those that learn outside it."""
        return memory.whole_weight(self.weight, self.memory, self.mask, xp=self.xp) if self.rule.shadow else self.weight

    def at_start(self, scores: Array | None = None) -> Connections:
        """All connections before the first step.

        Args:
            scores: the user's scores for the initial topology, flat and of any floating dtype, or bools.
        """
        weight, xp = self.weight, self.xp
        if scores is not None:
            scores = xp.astype(scores, xp.widen(weight[:0]).dtype)
        return self._connections(weight, self.random_key(INITIAL) if self.rule.starts_random else None, scores=scores)

    def at_update(self, update: Any, gradient: Array | None = None) -> Connections:
        """All connections before an update; a missing gradient counts as 0."""
        weight = self.whole_weight
        if gradient is None:
            gradient = self.xp.zeros_like(weight)
        key = self.random_key(update) if self.rule.reads_random else None
        remembered = {kind: array for kind, array in self.memory.items() if kind != "shadow"}
        return self._connections(weight, key, gradient=gradient, **remembered)

    def at_refit(self) -> Connections:
        """All connections, in the random order of the first topology, with a gradient that counts (T6)."""
        weight = self.whole_weight
        return self._connections(weight, self.random_key(INITIAL), gradient=self.xp.full_like(weight, 1))

    def start(self, connections: Connections, mask: Array) -> None:
        """Take the initial topology: set weights outside it to zero, and optimizer state that exists already.

        Args:
            connections: the connections `at_start`.
            mask: flat bool array, the initial topology.
        """
        self.memory = memory.first_memory(self.rule.memories, connections, mask, xp=self.xp)
        self.mask = mask
        self.zero_weight_outside(mask)
        if not self.rule.shadow:
            self.zero_state_outside(mask)

    def resume(self, mask: Array, remembered: dict[str, Array]) -> None:
        """Take a saved topology and memory. The optimizer's own checkpoint restores the optimizer's state."""
        self.mask = mask
        self.memory = {kind: self.xp.reshape(array, (-1,)) for kind, array in remembered.items()}
        self.zero_weight_outside(mask)

    def observe(self, gradient: Array | None) -> None:
        """Update the momentum, if the method has one, with a step's dense gradient; a missing one counts as 0."""
        if "momentum" in self.rule.memories:
            gradient = self.xp.zeros_like(self.weight) if gradient is None else gradient
            self.memory = memory.observe(self.memory, gradient, self.rule.momentum, xp=self.xp)

    def for_optimizer(self, gradient: Array, step: Any) -> Array:
        """The gradient that the optimizer gets: `noisy`, and 0 outside the mask."""
        return self.zero_outside(self.noisy(gradient, step))

    def zero_outside(self, values: Array) -> Array:
        """The values inside the mask, and 0 outside, also in place of NaN and infinity."""
        return self._zero_outside(self.mask, values)

    def noisy(self, gradient: Array, step: Any) -> Array:
        """A gradient plus the pull and the noise that the recipe adds (`rigl_core.arrays.noise`)."""
        rule = self.rule
        if not rule.changes_gradient:
            return gradient
        key = self.random_key_of_noise() if rule.noise else None
        connections = self._connections(self.weight, key, gradient=gradient)
        return noisy_gradient(connections, rule.l1, rule.noise, step, xp=self.xp)

    def random_key_of_noise(self) -> tuple[int, int]:
        """The random key of the noise in gradients; the step is not yet part of it."""
        return random_key(self._seed, self.layer.name, GRADIENT_NOISE)

    def show_shadow(self) -> None:
        """Call it before the optimizer's step: the weights outside the mask become those that learn there."""
        if self.rule.shadow:
            self.weight = self.whole_weight

    def hide_shadow(self) -> None:
        """Call it after the optimizer's step to remember the weights outside the mask. The adapter then zeroes them."""
        if self.rule.shadow:
            self.memory = memory.memory_after(self.memory, Connections(self.weight), self.mask, self.mask, xp=self.xp)

    def move(self, update: Any, gradient: Array | None, counts: Counts) -> None:
        """One update of the layer on its own; see `move_layers`."""
        move_layers([self], update, [gradient], counts)

    def take(self, connections: Connections, updated: Updated) -> None:
        """Take over an update: its weights, memory, topology and optimizer state.

        Args:
            connections: the connections `at_update`.
            updated: the layer's new mask and its survivors.
        """
        rule, xp = self.rule, self.xp
        weight = None if rule.grows_from_zero else weights_after(rule, connections, self.mask, updated, xp=xp)
        self.memory = memory.memory_after(self.memory, connections, updated.mask, updated.survivors, xp=xp)
        if weight is None:
            self.zero_weight_outside(updated.survivors)
        else:
            self.weight = weight
        self.mask = updated.mask
        if not rule.shadow:
            self.zero_state_outside(updated.survivors)

    def _connections(
        self, weight: Array, key: tuple[Array, Array] | None, *, gradient: Array | None = None, **arrays: Array
    ) -> Connections:
        indices = None if key is None else self.indices()
        return Connections(weight, gradient, indices, key, layer=self.layer, **arrays)

    def _zero_outside(self, mask: Array, values: Array) -> Array:
        return self.xp.where(mask, values, self.xp.zeros_like(values))


def first_masks(plan: Plan, layers: Mapping[int, SparseLayer], scores: Mapping[str, Array]) -> dict[int, Array]:
    """The initial topology of every layer, flat, by the layers' positions in the plan. Nothing is changed.

    Args:
        plan: the plan.
        layers: the layers that are not dense, by position. Pools that are not among them are left out.
        scores: the user's scores, flat, by layer name, if the recipe reads some.
    """
    masks: dict[int, Array] = {}
    for pool in plan.pools:
        if pool[0] not in layers:
            continue
        first = layers[pool[0]]
        connections = brought_to(first, [layers[i].at_start(scores.get(layers[i].layer.name)) for i in pool])
        active = [plan.initial_active[i] for i in pool]
        masks |= zip(pool, initial_masks(first.rule, connections, active, xp=first.xp), strict=True)
    return masks


def move_layers(layers: Sequence[SparseLayer], update: Any, gradients: Sequence[Array | None], counts: Counts) -> None:
    """One update of the layers of a pool.

    Args:
        layers: the layers of the pool.
        update: the update's number, which may be traced.
        gradients: the dense gradient of each layer, flat, if an update reads it; None for a layer that was not used.
        counts: the numbers of connections that the pool keeps and grows.
    """
    first = layers[0]
    before = [layer.at_update(update, gradient) for layer, gradient in zip(layers, gradients, strict=True)]
    masks = [first.bring(layer.mask) for layer in layers]
    updated = move_pool(first.rule, brought_to(first, before), masks, counts, xp=first.xp)
    for layer, connections, new in zip(layers, before, updated, strict=True):
        layer.take(connections, Updated(layer.bring(new.mask), layer.bring(new.survivors)))


def brought_to(first: SparseLayer, pool: Sequence[Connections]) -> list[Connections]:
    """The connections of a pool, moved to the device of its first layer, since layers may be on several devices."""
    own, *others = pool
    return [own, *(one.with_arrays([first.bring(array) for array in one.arrays]) for one in others)]
