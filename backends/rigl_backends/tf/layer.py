"""Where the variables of Keras are that a step of `rigl_core.step.layer` changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from rigl_backends.tf import namespace as tensorflow_namespace
from rigl_backends.tf.state import PerWeight
from rigl_core import adapter
from rigl_core.adapter import Connections, Counts, Layer, Recipe, Updated, first_memory, move_layers, random_key_table

EACH_POOL = 1 << 17
"""The connections whose work takes as long as what every pool takes besides, of any size."""


class Kept(NamedTuple):
    """What a layer keeps when its training goes on, maybe in another storage.

    Attributes:
        mask: the topology, flat; None if the layer holds active weights then, which have their places.
        memory: what the recipe remembers: flat arrays of the whole layer, by kind.
    """

    mask: tf.Tensor | None
    memory: Mapping[str, tf.Tensor]


class SparseLayer(adapter.SparseLayer):
    """One variable of a model and its topology. All that happens to it can be traced.

    Attributes:
        variable: the weights, in the layer's shape.
        mask_variable: the topology, flat.
        waits_for: what is to be written before an update of this layer.
        found_outside: the most weights outside the mask that were counted since they were last told.
    """

    xp = tensorflow_namespace
    waits_for: Sequence[tf.Tensor] = ()

    def __init__(
        self,
        layer: Layer,
        recipe: Recipe,
        variable: Any,
        state: Sequence[PerWeight],
        add: Callable[[str, tf.Tensor], keras.Variable],
    ) -> None:
        """Args are for `SparseOptimizer`.

        Args:
            layer: the description.
            recipe: how to train sparsely.
            variable: the weights.
            state: what the optimizer holds for each weight.
            add: makes a variable of the optimizer, given its kind and first values.
        """
        super().__init__(layer, recipe)
        self.variable = variable
        self.found_outside = tf.Variable(tf.constant(0, tf.int64), trainable=False)
        self._state, self._add = state, add
        updates = recipe.schedule.updates if recipe.schedule is not None and self.rule.reads_random else 0
        self._random_keys = tf.constant(random_key_table(recipe.seed, [layer.name], updates)[:, 0])

    # Where the arrays are.

    @property
    def weight(self) -> tf.Tensor:
        return self.flat(self.variable)

    @weight.setter
    def weight(self, weight: tf.Tensor) -> None:
        self.variable.assign(self.shaped(weight))

    @property
    def mask(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.mask_variable)

    @mask.setter
    def mask(self, mask: tf.Tensor) -> None:
        self.mask_variable.assign(mask)

    @property
    def memory(self) -> dict[str, tf.Tensor]:
        return {kind: tf.convert_to_tensor(variable) for kind, variable in self._memory.items()}

    @memory.setter
    def memory(self, memory: dict[str, tf.Tensor]) -> None:
        for kind, array in memory.items():
            self._memory[kind].assign(array)

    def indices(self) -> tf.Tensor:
        return tf.range(self.layer.size)

    def random_key(self, update: Any) -> tuple[Any, Any]:
        if isinstance(update, int):
            return super().random_key(update)
        first, second = tf.unstack(tf.gather(self._random_keys, update))
        return first, second

    def zero_weight_outside(self, mask: tf.Tensor) -> None:
        self.variable.assign(self._in_shape(mask, self.variable))

    def zero_state_outside(self, mask: tf.Tensor) -> None:
        written = self.variable
        for variable, fresh in self._state:
            mask = after([tf.convert_to_tensor(written)], mask)  # each takes a new array first
            values = tf.convert_to_tensor(variable)
            outside = self.variable if fresh is None else self.xp.full_like(values, fresh)
            variable.assign(self.xp.where(self.shaped(mask), values, tf.convert_to_tensor(outside)))
            written = variable

    def count_outside(self) -> None:
        """Count the weights outside the mask that are not 0."""
        count = self.xp.count_outside(self.weight, self.mask)
        self.found_outside.assign(tf.maximum(self.found_outside, count))

    def zero_gradient_outside(self, gradient: Any) -> tf.Tensor:
        """The gradient of active weights alone, in the layer's shape."""
        return self._in_shape(self.mask, gradient)

    def flat(self, values: Any) -> tf.Tensor:
        """An array of the layer's shape as the core sees it."""
        return tf.reshape(values, [self.layer.size])

    def shaped(self, values: tf.Tensor) -> tf.Tensor:
        """A flat array in the layer's shape."""
        return tf.reshape(values, self.layer.shape)

    def _in_shape(self, mask: tf.Tensor, values: Any) -> tf.Tensor:
        """The values inside a flat mask, in the layer's shape: what is not reshaped, XLA can write in place."""
        return self._zero_outside(self.shaped(mask), tf.convert_to_tensor(values))

    @property
    def written(self) -> list[tf.Tensor]:
        """What has been written, to be waited for."""
        state = [one.variable for one in self._state]
        variables = (self.variable, self.mask_variable, *self._memory.values(), *state)
        return [tf.convert_to_tensor(variable) for variable in variables]

    # What a step does.

    def start(self, connections: Connections, mask: tf.Tensor) -> None:
        """Make the variables; a checkpoint that was restored before gives them its values in place of these."""
        self.mask_variable = self._add("mask", mask)
        first = first_memory(self.rule.memories, connections, mask, xp=self.xp)
        self._memory = {kind: self._add(kind, array) for kind, array in first.items()}
        self.zero_what_was_written()

    def go_on(self, kept: Kept) -> None:
        """Make the variables of a training that goes on."""
        assert kept.mask is not None
        self.mask_variable = self._add("mask", kept.mask)
        self._memory = {kind: self._add(kind, array) for kind, array in kept.memory.items()}

    def whole_memory(self) -> dict[str, tf.Tensor]:
        """The memory, as flat arrays of the whole layer."""
        return self.memory

    def take(self, connections: Connections, updated: Updated) -> None:
        mask, survivors = (after(self.waits_for, array) for array in (updated.mask, updated.survivors))
        super().take(connections, Updated(mask, survivors))

    def zero_what_was_written(self) -> None:
        """Zero weights and state outside the mask, whatever was written there."""
        self.zero_weight_outside(self.mask)
        if not self.rule.shadow:
            self.zero_state_outside(self.mask)


def after(written: Sequence[tf.Tensor], array: tf.Tensor) -> tf.Tensor:
    """The array, when others have been written: what is made of it waits for these."""
    with tf.control_dependencies(written):
        return tf.identity(array)


class Pool(NamedTuple):
    """Layers that choose together, with what their update reads.

    Attributes:
        layers: of the pool.
        gradients: dense and flat, of each layer; None for a layer that was not used.
        update: the update's number.
        counts: how many connections it keeps and grows, to be sliced where they are used.
    """

    layers: Sequence[SparseLayer]
    gradients: Sequence[tf.Tensor | None]
    update: tf.Tensor
    counts: Callable[[], Counts]

    @property
    def size(self) -> int:
        """How many connections its layers could have."""
        return sum(layer.layer.size for layer in self.layers)

    @property
    def written(self) -> list[tf.Tensor]:
        """What has been written, to be waited for."""
        return [array for layer in self.layers for array in layer.written]

    def move(self, waits_for: Sequence[tf.Tensor] = ()) -> None:
        """One update of these layers, which are written after ``waits_for``."""
        for layer in self.layers:
            layer.waits_for = waits_for
        move_layers(self.layers, self.update, self.gradients, self.counts())
        for layer in self.layers:
            layer.waits_for = ()


def move_all(pools: Sequence[Pool]) -> None:
    """Two pools at a time, one of the largest and one of the smallest, of which one at a time is written.

    What is written takes memory for a new array beside the old one.
    """
    waiting, work = sorted(pools, key=lambda pool: pool.size), [0, 0]
    done: list[list[tf.Tensor]] = [[], []]
    last: list[tf.Tensor] = []
    while waiting:
        lane = int(work[1] < work[0])
        pool = waiting.pop(0 if lane else -1)
        with tf.control_dependencies(done[lane]):
            pool.move(waits_for=last)
        done[lane] = last = pool.written
        work[lane] += pool.size + EACH_POOL
