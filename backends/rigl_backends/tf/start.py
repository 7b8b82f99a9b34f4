"""What a sparse training starts with: the initial topology, and what the recipe remembers of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from rigl_backends.tf.namespace import tensorflow_namespace as xp
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.memory import first_memory
from rigl_core.arrays.random import INITIAL, random_key
from rigl_core.plan import Plan
from rigl_core.step.update import initial_masks


class Start(NamedTuple):
    """One layer before the first step: flat arrays."""

    mask: tf.Tensor
    memory: Mapping[str, tf.Tensor]


def start(plan: Plan, variables: Sequence[Any], scores: Mapping[str, Any] | None) -> dict[int, Start]:
    """The layers with a topology, by position, before the first step. Nothing is changed.

    Args:
        plan: the exact counts.
        variables: of the plan's layers, as they are before they are masked.
        scores: by layer name, for recipes that ask for them. Without, everything is active until a state is loaded.
    """
    starts = {}
    for pool in plan.pools:
        connections = [_connections(plan, i, variables[i], scores) for i in pool]
        if plan.recipe.initial.reads_scores and scores is None:
            masks = [tf.ones_like(own.weight, tf.bool) for own in connections]
        else:
            masks = initial_masks(plan.recipe, connections, [plan.initial_active[i] for i in pool], xp=xp)
        for i, own, mask in zip(pool, connections, masks, strict=True):
            starts[i] = Start(mask, first_memory(plan.recipe.memories, own, mask, xp=xp))
    return starts


def _connections(plan: Plan, position: int, variable: Any, scores: Mapping[str, Any] | None) -> Connections:
    layer, recipe = plan.layers[position], plan.recipe
    weight = tf.reshape(variable, [layer.size])
    draws = recipe.initial.reads_random or "sign" in recipe.memories
    given = None if scores is None else xp.cast(tf.reshape(scores[layer.name], [layer.size]), xp.widen(weight))
    return Connections(
        weight,
        indices=tf.range(layer.size) if draws else None,
        random_key=random_key(recipe.seed, layer.name, INITIAL),
        scores=given,
        layer=layer,
    )
