"""One layer's part in a step, as pure functions: arrays in its shape, but for the memory, which is flat."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from rigl_backends.jax.namespace import jax_namespace as xp
from rigl_backends.jax.pools import Memory
from rigl_core.arrays import memory as core
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.noise import GRADIENT_NOISE, noisy_gradient
from rigl_core.arrays.random import random_key
from rigl_core.recipe import Recipe


def applied(weight: Array, update: Array) -> Array:
    """The weight as `optax.apply_updates` will make it."""
    return (weight + update).astype(weight.dtype)


def project(update: Array, weight: Array, mask: Array) -> Array:
    """The update inside the mask; outside the one that makes the weight exactly zero."""
    return jnp.where(mask, update, -weight.astype(update.dtype))


def observe(memory: Memory, gradient: Array, decay: float) -> Memory:
    """What is remembered after a step's dense gradient was seen."""
    return core.observe(memory, gradient.reshape(-1), decay, xp=xp)


def whole_weight(weight: Array, mask: Array, memory: Memory) -> Array:
    """The weights, with those that learn unseen."""
    flat = core.whole_weight(weight.reshape(-1), memory, mask.reshape(-1), xp=xp)
    whole: Array = flat.reshape(weight.shape)
    return whole


def hide_shadow(whole: Array, mask: Array, memory: Memory) -> Memory:
    """What is remembered of the whole weights after a gradient step."""
    flat = mask.reshape(-1)
    return core.memory_after(memory, Connections(whole.reshape(-1)), flat, flat, xp=xp)


def noisy(recipe: Recipe, name: str, weight: Array, gradient: Array, mask: Array, step: Array) -> Array:
    """The gradient of active weights with what the recipe adds to it."""
    first, second = np.array(random_key(recipe.seed, name, GRADIENT_NOISE), np.int32)
    indices = jnp.arange(weight.size, dtype=jnp.int32)
    connections = Connections(weight.reshape(-1), gradient.reshape(-1), indices, (first, second))
    flat = noisy_gradient(connections, recipe.l1, recipe.noise, step, xp=xp)
    return jnp.where(mask, flat.reshape(weight.shape), jnp.zeros_like(gradient))
