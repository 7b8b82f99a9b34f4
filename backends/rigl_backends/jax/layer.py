"""A layer in a pure function: the arrays that a step of `rigl_core.step.layer` reads and replaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rigl_backends.jax import namespace
from rigl_backends.jax.namespace import is_on_host
from rigl_core import adapter
from rigl_core.adapter import Counts, Layer, Namespace, Plan, Rule, numpy_namespace, random_key

Array = Any
"""An array of JAX; at the start, of NumPy where it is on the host."""
Memory = dict[str, Array]
"""Flat arrays by kind: see `rigl_core.adapter.SparseLayer`."""

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

    def indices(self) -> Array:
        return (np if self.xp is numpy_namespace else jnp).arange(self.weight.size, dtype=np.int32)

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
    free = adapter.arrangement_of(rule.structure, layer) is None
    return Layer("layer", (layer.size,)) if free else dataclasses.replace(layer, name="layer")


def start_pool(
    plan: Plan, pool: Sequence[int], weights: Mapping[str, Array], scores: Mapping[str, ArrayLike]
) -> dict[str, tuple[Array, Memory]]:
    """The mask, in its layer's shape, and the memory of each layer of a pool before the first step, by name.

    NumPy finds them where it can read the weights: it takes longer to compile what runs once than to run it.

    Args:
        plan: of the training.
        pool: positions of the layers.
        weights: by layer name.
        scores: what the user gave for the initial topology, by layer name.
    """
    rule, described = plan.recipe.rule, [plan.layers[i] for i in pool]
    given = [(weights[layer.name], scores.get(layer.name)) for layer in described]
    on_host = is_on_host(given)
    xp, asarray = (numpy_namespace, np.asarray) if on_host else (namespace, jnp.asarray)
    layers, before = [], []
    for layer, (weight, score) in zip(described, given, strict=True):
        key = random_key(plan.recipe.seed, layer.name, adapter.INITIAL)
        layers.append(SparseLayer(layer, rule, asarray(weight).reshape(-1), None, {}, key, xp))
        dtype = np.promote_types(weight.dtype, np.float32)
        before.append(layers[-1].at_start(None if score is None else asarray(score, dtype).reshape(-1)))
    masks = adapter.initial_masks(rule, before, [plan.initial_active[i] for i in pool], xp=xp)
    for own, connections, mask in zip(layers, before, masks, strict=True):
        own.start(connections, mask)
    started = {own.layer.name: (own.mask.reshape(own.layer.shape), own.memory) for own in layers}
    return {name: _like(weights[name], own) for name, own in started.items()} if on_host else started


@jax.jit
def move_pool(layers: list[SparseLayer], gradients: list[Array | None], counts: Counts) -> list[SparseLayer]:
    """The layers of a pool after an update, by code that pools share whose layers are alike.

    Args:
        layers: with the keys of the update.
        gradients: dense and flat, if an update reads them.
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


def _like(weight: Array, tree: Any) -> Any:
    """NumPy's arrays as JAX's. If the weight lies on several devices, what has its shape lies as it does."""

    def place(array: np.ndarray[Any, Any]) -> Array:
        spread = sharding is not None and len(sharding.device_set) > 1 and array.shape == weight.shape
        return jax.device_put(array, sharding) if spread else jnp.asarray(array)

    sharding = getattr(weight, "sharding", None)  # parameters may be arrays of NumPy
    return jax.tree.map(place, tree)
