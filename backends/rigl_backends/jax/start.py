"""The topology before the first step, which lies on the devices as the weights do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType
from jax.typing import ArrayLike

from rigl_backends.jax.layer import Array, Memory, SparseLayer
from rigl_backends.jax.namespace import is_on_host
from rigl_backends.jax.trees import is_traced
from rigl_backends.jax.whole import whole_namespace
from rigl_core import adapter
from rigl_core.adapter import Plan, numpy_namespace, random_key

_T = TypeVar("_T")


def start_pool(
    plan: Plan, pool: Sequence[int], weights: Mapping[str, Array], scores: Mapping[str, ArrayLike]
) -> dict[str, tuple[Array, Memory]]:
    """The mask and the memory of each layer of a pool before the first step, by name, in the layer's shape.

    They lie as the weight does. NumPy finds them where it can read the weights: it takes longer to compile what runs
    once than to run it.

    Args:
        plan: of the training.
        pool: positions of the layers.
        weights: by layer name.
        scores: what the user gave for the initial topology, by layer name.
    """
    rule, described = plan.recipe.rule, [plan.layers[i] for i in pool]
    given = [weights[layer.name] for layer in described]
    on_host = is_on_host((given, [scores.get(layer.name) for layer in described]))
    layers, of_user = [], []
    for layer, weight in zip(described, given, strict=True):
        key = np.array(random_key(plan.recipe.seed, layer.name, adapter.INITIAL), np.int32)
        own, xp = (np.asarray(weight), numpy_namespace) if on_host else (weight, whole_namespace)
        layers.append(SparseLayer.of(layer, rule, own, None, {}, key, xp))
        of_user.append(_as_scores(scores.get(layer.name), layers[-1], weight))
    active = tuple(plan.initial_active[i] for i in pool)
    placements = tuple(_placement(weight) for weight in given)
    start = _start if on_host else _start_shards
    started = start(layers, of_user, active, tuple(layer.shape for layer in described), placements)
    names = [layer.name for layer in described]
    return dict(zip(names, jax.tree.map(jnp.asarray, started) if on_host else started, strict=True))


def _start(
    layers: Sequence[SparseLayer],
    scores: Sequence[Array | None],
    active: tuple[int, ...],
    shapes: Sequence[tuple[int, ...]],
    placements: Sequence[Any],
) -> list[tuple[Array, Memory]]:
    """The masks and the memory, which lie as `_placement` says."""
    before = [layer.at_start(own) for layer, own in zip(layers, scores, strict=True)]
    masks = adapter.initial_masks(layers[0].rule, before, active, xp=layers[0].xp)
    started = []
    for layer, connections, mask, shape, placed in zip(layers, before, masks, shapes, placements, strict=True):
        layer.start(connections, mask)
        own = jax.tree.map(lambda x, shape=shape: x.reshape(shape), (layer.mask, layer.memory))
        started.append(own if placed is None else _placed(own, placed))
    return started


def _placed(tree: _T, sharding: jax.sharding.NamedSharding) -> _T:
    """The arrays, which compiled code leaves as the sharding says."""
    if AxisType.Explicit in getattr(getattr(sharding, "mesh", None), "axis_types", ()):
        placed: _T = jax.device_put(tree, sharding)
        return placed
    constrained: _T = lax.with_sharding_constraint(tree, sharding)  # type: ignore[no-untyped-call]
    return constrained


_start_shards = jax.jit(_start, static_argnums=(2, 3, 4))


def _as_scores(scores: ArrayLike | None, layer: SparseLayer, weight: Array) -> Array | None:
    """The user's scores for a layer, in its dtype or float32, where its weight is."""
    if scores is None:
        return None
    dtype = np.promote_types(weight.dtype, np.float32)
    if layer.xp is numpy_namespace:
        return layer.flat(np.asarray(scores, dtype))
    where = _placement(weight)
    return layer.flat(jnp.asarray(scores, dtype) if where is None else jax.device_put(scores, where).astype(dtype))


def _placement(weight: Array) -> Any:
    """The sharding of an array that lies on several devices; None of any other, and of one that is traced."""
    sharding = None if is_traced(weight) else getattr(weight, "sharding", None)  # it may be an array of NumPy
    return sharding if sharding is not None and len(sharding.device_set) > 1 else None
