"""Which connections of one layer are active: the core's choices, compiled once for all layers of a shape."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rigl_backends.jax.namespace import jax_namespace as xp
from rigl_core.criteria import Connections
from rigl_core.recipe import Recipe


def criteria_of(recipe: Recipe) -> Recipe:
    """The recipe's criteria and nothing else, so that trainings share compiled code."""
    return Recipe(drop=recipe.drop, grow=recipe.grow, initial=recipe.initial)


@functools.partial(jax.jit, static_argnums=0)
def initial_mask(criteria: Recipe, weight: Array, key: Array, active: Any) -> Array:
    """The mask of a layer before the first step, in its shape.

    Args:
        criteria: what `criteria_of` gave.
        weight: the weights.
        key: int32 array of two random keys.
        active: how many are active.
    """
    mask: Array = criteria.initial_mask(_connections(weight, None, key), active, xp=xp)
    return mask.reshape(weight.shape)


@functools.partial(jax.jit, static_argnums=0)
def moved_mask(
    criteria: Recipe, weight: Array, gradient: Array, key: Array, mask: Array, active: Any, drop_count: Array
) -> Array:
    """The mask of a layer after an update that moves ``drop_count`` of its ``active`` connections."""
    connections = _connections(weight, gradient, key)
    moved: Array = criteria.updated_mask(connections, mask.reshape(-1), active - drop_count, drop_count, xp=xp)
    return moved.reshape(weight.shape)


def _connections(weight: Array, gradient: Array | None, key: Array) -> Connections:
    return Connections(
        weight=weight.reshape(-1),
        gradient=None if gradient is None else gradient.reshape(-1),
        indices=jnp.arange(weight.size, dtype=jnp.int32),
        random_key=(key[0], key[1]),
    )
