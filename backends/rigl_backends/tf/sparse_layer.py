"""One layer of a Keras model and its topology."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.tf.namespace import tensorflow_namespace as xp
from rigl_core.criteria import Connections
from rigl_core.plan import Plan
from rigl_core.random import INITIAL, random_key, random_key_table
from rigl_core.topology import survivors


class SparseLayer:
    """A variable, its mask, and what the optimizer holds for it. Every method can be traced.

    Attributes:
        layer: the description.
        active: how many weights are active.
        variable: the weights.
        mask: bool variable of the layer's shape.
    """

    def __init__(
        self, plan: Plan, position: int, variable: Any, mask: keras.Variable, state: Sequence[keras.Variable]
    ) -> None:
        self.layer = plan.layers[position]
        self.active = plan.active[position]
        self.variable = variable
        self.mask = mask
        self._recipe = plan.recipe
        self._state = state
        self._drop_counts = plan.drop_counts[:, position]
        updates = len(self._drop_counts) if plan.recipe.reads_random else 0
        self._random_keys = random_key_table(plan.recipe.seed, [self.layer.name], updates)[:, 0]

    def masked(self, values: Any) -> tf.Tensor:
        """The values of active weights, exact zeros elsewhere, also in place of NaN and infinities."""
        values = tf.convert_to_tensor(values)
        return tf.where(self.mask, values, tf.zeros_like(values))

    def project(self) -> None:
        """Keep the active weights and what the optimizer holds for them, whatever happened to the others."""
        mask = tf.convert_to_tensor(self.mask)
        self._keep(mask, mask)

    def move(self, update: tf.Tensor, gradient: tf.Tensor | None) -> None:
        """The topology update. A layer that was not used, and so has no gradient to grow by, keeps its own."""
        if gradient is None and self._recipe.reads_gradient:
            return
        drop_count = tf.gather(self._drop_counts, update)
        keys = tf.gather(self._random_keys, update) if self._recipe.reads_random else None
        connections = _connections(self.variable, None if keys is None else (keys[0], keys[1]), gradient)
        old = tf.convert_to_tensor(self.mask)
        new = self._recipe.updated_mask(connections, tf.reshape(old, [-1]), self.active - drop_count, drop_count, xp=xp)
        new = tf.reshape(new, self.layer.shape)
        self.mask.assign(new)
        self._keep(old, new)

    def _keep(self, old: tf.Tensor, new: tf.Tensor) -> None:
        """Zero the weights and every per-weight optimizer state, but for the survivors."""
        for values in (self.variable, *self._state):
            values.assign(survivors(tf.convert_to_tensor(values), old, new, xp=xp))


def initial_mask(plan: Plan, position: int, variable: Any) -> tf.Tensor:
    """The initial topology of one of the plan's layers."""
    layer = plan.layers[position]
    connections = _connections(variable, random_key(plan.recipe.seed, layer.name, INITIAL))
    return tf.reshape(plan.recipe.initial_mask(connections, plan.active[position], xp=xp), layer.shape)


def _connections(variable: Any, key: tuple[Any, Any] | None, gradient: tf.Tensor | None = None) -> Connections:
    weight = tf.reshape(variable, [-1])
    return Connections(
        weight=weight,
        gradient=None if gradient is None else tf.reshape(gradient, [-1]),
        indices=None if key is None else tf.range(tf.size(weight)),
        random_key=key,
    )
