"""One variable, its topology, and what the optimizer and the method hold for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.tf.namespace import tensorflow_namespace as xp
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.memory import memory_after, observe, whole_weight
from rigl_core.arrays.noise import GRADIENT_NOISE, noisy_gradient
from rigl_core.arrays.random import random_key, random_key_table
from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe
from rigl_core.step.update import Moved, weights_after


class SparseLayer:
    """A layer's part in a sparse training. Every method can be traced.

    Attributes:
        layer: the description.
        variable: the weights.
        mask: its topology, a bool variable of its shape.
        memory: flat variables, what the recipe remembers of each connection (`rigl_core.arrays.memory`).
    """

    def __init__(
        self,
        layer: Layer,
        recipe: Recipe,
        variable: Any,
        mask: keras.Variable,
        memory: Mapping[str, keras.Variable],
        state: Sequence[keras.Variable],
    ) -> None:
        self.layer = layer
        self.variable = variable
        self.mask = mask
        self.memory = memory
        self._recipe = recipe
        self._state = state
        updates = recipe.schedule.updates if recipe.schedule is not None and recipe.reads_random else 0
        self._random_keys = tf.constant(random_key_table(recipe.seed, [layer.name], updates)[:, 0])

    @property
    def flat_mask(self) -> tf.Tensor:
        """The topology as the core sees it."""
        return self._flat(self.mask)

    def masked(self, values: Any) -> tf.Tensor:
        """The values of active weights, exact zeros elsewhere, also in place of NaN and infinities."""
        return _inside(tf.convert_to_tensor(self.mask), values)

    def project(self) -> None:
        """Keep the active weights and what the optimizer holds for them, whatever happened to the others."""
        mask = tf.convert_to_tensor(self.mask)
        self.variable.assign(_inside(mask, self.variable))
        self._zero_state(mask)

    def observe(self, gradient: Any) -> None:
        """Remember what a step's dense gradient tells."""
        memory = self._remembered()
        self._remember(memory, observe(memory, self._flat(gradient), self._recipe.momentum, xp=xp))

    def show_shadow(self) -> None:
        """Before the optimizer's step: weights outside the mask take part in it."""
        if "shadow" in self.memory:
            self._set_weight(self._whole_weight())

    def hide_shadow(self) -> None:
        """After it: zero what is outside the mask, and remember those weights."""
        if "shadow" in self.memory:
            memory, mask = self._remembered(), self.flat_mask
            self._remember(memory, memory_after(memory, Connections(self._flat(self.variable)), mask, mask, xp=xp))
            self.variable.assign(self.masked(self.variable))

    def noisy(self, gradient: Any, step: tf.Tensor) -> tf.Tensor:
        """The gradient of active weights with what the recipe adds to it."""
        key = random_key(self._recipe.seed, self.layer.name, GRADIENT_NOISE)
        connections = Connections(self._flat(self.variable), self._flat(gradient), self._indices(), key)
        noisy = noisy_gradient(connections, self._recipe.l1, self._recipe.noise, step, xp=xp)
        return self.masked(tf.reshape(noisy, self.layer.shape))

    def connections(self, update: tf.Tensor, gradient: Any) -> Connections:
        """All connections at an update; without a gradient it counts as 0."""
        weight, draws = self._whole_weight(), self._recipe.reads_random
        if gradient is None and self._recipe.reads_gradient:
            gradient = xp.zeros_like(weight)
        return Connections(
            weight,
            None if gradient is None else self._flat(gradient),
            self._indices() if draws else None,
            tuple(tf.unstack(tf.gather(self._random_keys, update))) if draws else None,
            layer=self.layer,
            **{kind: array for kind, array in self._remembered().items() if kind != "shadow"},
        )

    def move_to(self, connections: Connections, moved: Moved) -> None:
        """Take an update over: topology, weights, optimizer state and memory."""
        memory, survivors = self._remembered(), tf.reshape(moved.survivors, self.layer.shape)
        if self._recipe.grows_from_zero:
            self.variable.assign(_inside(survivors, self.variable))
        else:
            self._set_weight(weights_after(self._recipe, connections, self.flat_mask, moved, xp=xp))
        self._remember(memory, memory_after(memory, connections, moved.mask, moved.survivors, xp=xp))
        self.mask.assign(tf.reshape(moved.mask, self.layer.shape))
        self._zero_state(survivors)

    def _flat(self, values: Any) -> tf.Tensor:
        return tf.reshape(values, [self.layer.size])

    def _indices(self) -> tf.Tensor:
        return tf.range(self.layer.size)

    def _whole_weight(self) -> tf.Tensor:
        return whole_weight(self._flat(self.variable), self._remembered(), self.flat_mask, xp=xp)

    def _set_weight(self, flat: tf.Tensor) -> None:
        self.variable.assign(tf.reshape(flat, self.layer.shape))

    def _remembered(self) -> dict[str, tf.Tensor]:
        return {kind: tf.convert_to_tensor(variable) for kind, variable in self.memory.items()}

    def _remember(self, before: Mapping[str, tf.Tensor], after: Mapping[str, tf.Tensor]) -> None:
        for kind, values in after.items():
            if values is not before[kind]:
                self.memory[kind].assign(values)

    def _zero_state(self, survivors: tf.Tensor) -> None:
        """Zero the per-weight optimizer state, but for the survivors; that of shadow weights stays."""
        if "shadow" not in self.memory:
            for values in self._state:
                values.assign(_inside(survivors, values))


def _inside(mask: tf.Tensor, values: Any) -> tf.Tensor:
    values = tf.convert_to_tensor(values)
    # What tf.where does, at two thirds of its cost: ordinary steps are made of little else.
    return tf.raw_ops.Select(condition=mask, x=values, y=tf.zeros_like(values))
