"""A pool of layers at its start and at an update: the core's functions, compiled once for all pools alike."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rigl_backends.jax.host import like_layer, numpy_reads
from rigl_backends.jax.namespace import calling_namespace
from rigl_backends.jax.namespace import jax_namespace as xp
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.memory import first_memory, memory_after
from rigl_core.arrays.namespace import Namespace, numpy_namespace
from rigl_core.model.layers import Layer
from rigl_core.parts.distributions import ErdosRenyiKernel
from rigl_core.parts.drop_fractions import Cosine
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import Unstructured
from rigl_core.recipe import Recipe
from rigl_core.step.update import Counts, Moved, initial_masks, move_pool, weights_after

Memory = dict[str, Array]
"""What a recipe remembers of one layer's connections, flat, by kind."""


class Part(NamedTuple):
    """One layer before something is chosen, in its shape but for the memory.

    Attributes:
        weight: the weights; the whole ones, where they go on learning outside the mask.
        mask: its topology; None before there is one.
        memory: what the recipe remembers.
        gradient: the dense gradient, if the recipe reads it.
        key: int32 array of two random keys, if the recipe draws.
        scores: what the user gave for the initial topology.
    """

    weight: Array
    mask: Array | None = None
    memory: Memory = {}  # noqa: RUF012
    gradient: Array | None = None
    key: Any = None
    scores: Array | None = None


class MovedPart(NamedTuple):
    """One layer after an update, in its shape but for the memory.

    Attributes:
        mask: the new topology.
        survivors: connections that keep their weight and optimizer state.
        weight: the new weights.
        memory: what the recipe remembers now.
    """

    mask: Array
    survivors: Array
    weight: Array
    memory: Memory


class Choice(NamedTuple):
    """What of a recipe and of a pool's layers tells how connections are chosen, and nothing else: trainings and pools
    that agree in it share compiled code."""

    recipe: Recipe
    layers: tuple[Layer | None, ...]
    callbacks: bool = False


def choice_of(recipe: Recipe, layers: Sequence[Layer], *, callbacks: bool = False) -> Choice:
    """How a recipe chooses in these layers; ``callbacks`` if NumPy may."""
    free = isinstance(recipe.structure, Unstructured)
    return Choice(
        dataclasses.replace(
            recipe,
            method="",
            sparsity=None,
            distribution=ErdosRenyiKernel(),
            schedule=recipe.schedule and UpdateSchedule(end=1),
            drop_fraction=Cosine(),
            ramp=None,
            seed=0,
            dense=(),
            layer_sparsity=(),
            compensate=False,
        ),
        tuple(None if free else dataclasses.replace(layer, name="layer") for layer in layers),
        callbacks,
    )


def start_pool(choice: Choice, parts: Sequence[Part], active: Any) -> list[tuple[Array, Memory]]:
    """The mask and the memory of each layer before the first step.

    Where the numbers are at hand NumPy finds them: to compile what runs once takes longer than to run it.

    Args:
        choice: what `choice_of` gave.
        parts: the layers.
        active: int32, how many connections of each are active.
    """
    if not numpy_reads(parts):
        compiled: list[tuple[Array, Memory]] = _start_compiled(choice, parts, active)
        return compiled
    started = _start(choice, jax.tree.map(np.asarray, parts), active, numpy_namespace)
    return [like_layer(own, part.weight) for own, part in zip(started, parts, strict=True)]


def _start(choice: Choice, parts: Sequence[Part], active: Any, xp: Namespace) -> list[tuple[Any, Any]]:
    recipe = choice.recipe
    pool = [_connections(part, layer) for part, layer in zip(parts, choice.layers, strict=True)]
    masks = initial_masks(recipe, pool, list(active), xp=xp)
    return [
        (mask.reshape(part.weight.shape), first_memory(recipe.memories, own, mask, xp=xp))
        for part, own, mask in zip(parts, pool, masks, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=0)
def _start_compiled(choice: Choice, parts: Sequence[Part], active: Array) -> list[tuple[Any, Any]]:
    return _start(choice, parts, active, xp)


@functools.partial(jax.jit, static_argnums=0)
def moved_pool(choice: Choice, parts: Sequence[Part], keep: Array, grow: Array, digits: Array) -> list[MovedPart]:
    """Each layer after an update.

    Args:
        choice: what `choice_of` gave.
        parts: the layers.
        keep: int32 scalar, see `rigl_core.step.update.Counts`.
        grow: int32 scalar, the same.
        digits: int32 decimals, the same.
    """
    recipe = choice.recipe
    pool = [_connections(part, layer) for part, layer in zip(parts, choice.layers, strict=True)]
    masks = [_flat(part.mask) for part in parts]
    chooser = calling_namespace if choice.callbacks else xp
    moved = move_pool(recipe, pool, masks, Counts(keep, grow, digits), xp=chooser)
    return [_moved_part(recipe, *one) for one in zip(parts, pool, masks, moved, strict=True)]


def _moved_part(recipe: Recipe, part: Part, connections: Connections, old: Array, moved: Moved) -> MovedPart:
    weight = weights_after(recipe, connections, old, moved, xp=xp)
    memory = memory_after(part.memory, connections, moved.mask, moved.survivors, xp=xp)
    mask, survivors, weight = (x.reshape(part.weight.shape) for x in (moved.mask, moved.survivors, weight))
    return MovedPart(mask, survivors, weight, memory)


def _connections(part: Part, layer: Layer | None) -> Connections:
    """All connections of a layer; indices only where something is drawn."""
    key, arange = part.key, (np if isinstance(part.weight, np.ndarray) else jnp).arange
    return Connections(
        _flat(part.weight),
        _flat(part.gradient),
        None if key is None else arange(part.weight.size, dtype=np.int32),
        None if key is None else (key[0], key[1]),
        scores=_flat(part.scores),
        layer=layer,
        **{kind: array for kind, array in part.memory.items() if kind != "shadow"},
    )


def _flat(array: Array | None) -> Any:
    return None if array is None else array.reshape(-1)
