"""What a step looks at before it works: arrays that do not fit, infinite numbers, weights outside the masks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rigl_backends.jax.active_weight import Topology
from rigl_backends.jax.branches import cond
from rigl_backends.jax.handle import NOT_MASKED, SparseState
from rigl_backends.jax.namespace import call_on_host
from rigl_backends.jax.trees import Tree, is_traced, named_leaves, shape_of, varying
from rigl_backends.jax.written import is_written
from rigl_core.adapter import Plan, Recipe, all_finite, any_outside, errors


def check_arrays(plan: Plan, gradients: Tree, masks: Mapping[str, Any]) -> None:
    """Refuse a state of other layers or of a wrapper's making, and gradients that do not fit.

    Raises:
        ValueError: naming the layers.
    """
    names = {layer.name for layer in plan.layers}
    if set(masks) != names:
        raise ValueError(
            f"opt_state has masks for other layers than params; they differ in {sorted(set(masks) ^ names)}."
        )
    dtypes = ["uint16", "int32", "float32"], ["bool"]
    if any([str(array.dtype) for array in jax.tree.leaves(mask)] not in dtypes for mask in masks.values()):
        raise ValueError(
            "opt_state has masks that are no longer bool: a wrapper computed with them, as optax.contrib.sam does. Let "
            "it pass whole states on: sam(sparsify(...), ..., opaque_mode=True)."
        )
    arrays = named_leaves(gradients)
    for i in plan.sparse_layers:
        layer = plan.layers[i]
        if layer.name not in arrays:
            raise ValueError(f"gradients has none for layer {layer.name!r}: give zeros if it was not used.")
        if shape_of(arrays[layer.name])[1:] == layer.shape:
            raise ValueError(
                f"gradients has one for each example of layer {layer.name!r}: average them before, as in "
                "optax.chain(optax.contrib.differentially_private_aggregate(...), sparsify(...))."
            )
        mask, gradient = masks[layer.name], arrays[layer.name]
        if isinstance(mask, Topology):
            layer, mask = dataclasses.replace(layer, shape=mask.columns.shape, in_axes=(), out_axes=()), mask.columns
        for kind, array in (("mask", mask), ("gradient", gradient)):
            if shape_of(array) != layer.shape:
                raise errors.wrong_shape(layer, kind, shape_of(array))


def look(
    state: SparseState, recipe: Recipe, due: Array, weights: Mapping[str, Array], gradients: Tree, *, callbacks: bool
) -> tuple[Array, Array]:
    """Look at gradients and weights: in the first step and at updates, and at weights in every step outside ``jit``.

    Args:
        state: before the step.
        recipe: of the training.
        due: whether an update is due.
        weights: of the sparse layers.
        gradients: of all parameters, if an update reads gradients; else None.
        callbacks: whether NumPy may look.

    Returns:
        Two bool scalars: whether an update may be made, since the gradients are finite and the state is one of this
        recipe; and whether there ever were weights outside the masks. In other steps the first is true.

    Raises:
        ValueError: if there were, and the values are known (outside ``jit``).
    """

    seen = (due, state.masks, state.unmasked, weights, gradients)

    def outside() -> Array:
        masks = [state.masks[name] for name in weights]
        return state.unmasked | _told(any_outside, _any_outside, callbacks, list(weights.values()), masks)

    def closely() -> tuple[Array, Array]:
        floating = [g for g in jax.tree.leaves(gradients) if jnp.issubdtype(g.dtype, jnp.inexact)]
        moves = _told(all_finite, _all_finite, callbacks, floating) & is_written(state.recipe, recipe)
        return varying(moves, seen), varying(outside(), seen)

    def from_afar() -> tuple[Array, Array]:
        unmasked = jnp.asarray(state.unmasked) if is_traced(seen) else outside()
        return varying(jnp.ones((), bool), seen), varying(unmasked, seen)

    moves, unmasked = cond(due | (state.step == 0), closely, from_afar)
    if not is_traced(unmasked) and unmasked:
        raise ValueError(NOT_MASKED)
    return moves, unmasked


def _told(by_numpy: Callable[..., bool], by_jax: Callable[..., Array], callbacks: bool, *lists: list[Array]) -> Array:
    """Ask NumPy, or else JAX, about lists of arrays."""
    told = call_on_host(by_numpy, (), *lists) if callbacks else None
    return by_jax(*lists) if told is None else told


def _all_finite(arrays: Sequence[Array]) -> Array:
    return functools.reduce(jnp.logical_and, (jnp.all(jnp.isfinite(array)) for array in arrays), jnp.ones((), bool))


def _any_outside(weights: Sequence[Array], masks: Sequence[Array]) -> Array:
    outside = (jnp.any(~mask & (weight != 0)) for weight, mask in zip(weights, masks, strict=True))
    return functools.reduce(jnp.logical_or, outside, jnp.zeros((), bool))
