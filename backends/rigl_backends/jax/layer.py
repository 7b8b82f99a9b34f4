"""A layer in a pure function: the arrays that a step of `rigl_core.step.layer` reads and replaces.

They have the layer's shape, in which shards stay where they are; or are flat, where connections are chosen in groups.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rigl_backends.jax import namespace
from rigl_backends.jax.whole import flat_indices, for_flat_arrays, gathered, sharded_as
from rigl_core import adapter
from rigl_core.adapter import Counts, Layer, Namespace, Rule, numpy_namespace

Array = Any
"""An array of JAX; at the start, of NumPy where it is on the host."""
Memory = dict[str, Array]
"""Arrays by kind, in the layer's shape: see `rigl_core.adapter.SparseLayer`."""

_STATIC = {"static": True}  # part of the key under which compiled code is kept
jax.tree_util.register_dataclass(Counts, ["keep", "grow", "digits"], [])


@jax.tree_util.register_dataclass
@dataclass(eq=False)
class SparseLayer(adapter.SparseLayer):
    """A layer and its topology, as a pytree: its arrays may be traced.

    Attributes:
        layer: the description; `nameless`, where compiled code is to be shared.
        rule: what a step reads of the recipe.
        weight: see `rigl_core.adapter.SparseLayer`.
        mask: the same.
        memory: the same.
        key: two int32 numbers, if anything is drawn: for the start, an update, or the noise of a step's gradient.
        xp: the namespace of the arrays.
        survivors: after an update, the connections that keep their weight and optimizer state.
    """

    layer: Layer = field(metadata=_STATIC)
    rule: Rule = field(metadata=_STATIC)
    weight: Array
    mask: Array
    memory: Memory
    key: Any = None
    xp: Namespace = field(default=namespace, metadata=_STATIC)
    survivors: Array = None

    @classmethod
    def of(
        cls, layer: Layer, rule: Rule, weight: Array, mask: Array, memory: Memory, key: Any, xp: Namespace
    ) -> SparseLayer:
        """The layer with arrays of its shape, in a namespace for arrays of such a shape."""
        if xp is not numpy_namespace and (rule.scope == "global" or adapter.reads_axes(rule, layer)):
            weight, mask, memory = jax.tree.map(gathered, (weight, mask, memory))
        if xp is numpy_namespace or adapter.reads_axes(rule, layer):
            weight, mask, memory = jax.tree.map(lambda x: x.reshape(-1), (weight, mask, memory))
            xp = for_flat_arrays(xp)
        return cls(nameless(layer, rule), rule, weight, mask, memory, key, xp)

    def flat(self, array: Array) -> Array:
        gathers = self.xp is not numpy_namespace and array.shape != self.weight.shape
        return sharded_as(self.weight, (gathered(array) if gathers else array).reshape(self.weight.shape))

    def indices(self) -> Array:
        if self.xp is numpy_namespace:
            return np.arange(self.weight.size, dtype=np.int32)
        return flat_indices(self.weight)

    def random_key(self, update: Any) -> tuple[Any, Any]:
        return self.key[0], self.key[1]

    def random_key_of_noise(self) -> tuple[Any, Any]:
        return self.key[0], self.key[1]

    def zero_state_outside(self, mask: Array) -> None:
        """Does nothing: the optimizer's state is not the layer's, and `survivors` tell what to zero."""

    def take(self, connections: adapter.Connections, updated: adapter.Updated) -> None:
        super().take(connections, updated)
        self.survivors = updated.survivors


def nameless(layer: Layer, rule: Rule) -> Layer:
    """The layer without its name, and without its axes where connections are chosen freely.

    Layers whose connections are chosen alike are equal then.
    """
    named = dataclasses.replace(layer, name="layer")
    return named if adapter.reads_axes(rule, layer) else Layer("layer", (layer.size,))


@jax.jit
def move_pool(layers: list[SparseLayer], gradients: list[Array | None], counts: Counts) -> list[SparseLayer]:
    """The layers of a pool after an update, by code that pools share whose layers are alike.

    Args:
        layers: with the keys of the update.
        gradients: dense, in the shapes of the layers' arrays, if an update reads them.
        counts: of the update.
    """
    adapter.move_layers(layers, None, gradients, counts)
    return layers


def zero_weight_outside(update: Array, weight: Array, mask: Array) -> Array:
    """The update inside the mask; outside, the one that makes the weight exactly zero."""
    return jnp.where(mask, update, -weight.astype(update.dtype))


def applied(weight: Array, update: Array) -> Array:
    """The weight as `optax.apply_updates` will make it."""
    return (weight + update).astype(weight.dtype)


def no_update(update: Array) -> Array:
    """Minus zero, which changes no bit, not even that of a minus zero."""
    return -jnp.zeros_like(update)


def in_shape(weight: Array, tree: Any) -> Any:
    """The arrays of a layer in the shape of its weight."""
    return jax.tree.map(lambda array: sharded_as(weight, array.reshape(weight.shape)), tree)
