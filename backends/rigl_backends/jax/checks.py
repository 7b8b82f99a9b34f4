"""What a sparse training in JAX refuses, and the check that nobody forgot the masks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.tree_util import tree_flatten_with_path

from rigl_backends.jax.branches import when
from rigl_backends.jax.host import call_on_host
from rigl_backends.jax.state import NOT_MASKED, SparseState, holds
from rigl_backends.jax.trees import Tree, is_traced, mirrored_names, named_leaves, shape_of
from rigl_core.plan import Plan
from rigl_core.step import errors
from rigl_core.step.selection import all_finite, any_outside

Call = Callable[..., Array | None]
"""`rigl_backends.jax.host.call_on_host`, or what never calls."""


def check_inner(inner_state: Any, params: Tree) -> None:
    """Refuse an inner transformation whose state cannot follow a topology that moves.

    Raises:
        ValueError: saying what to do instead.
    """
    if holds(inner_state, SparseState):
        raise errors.already_sparsified("inner")
    if holds(inner_state, optax.MultiStepsState):
        raise ValueError(
            "inner hides optax.MultiSteps inside another transformation, where the accumulated gradient cannot be "
            "seen: put it outside, MultiSteps(sparsify(...), k)."
        )
    arrays = named_leaves(params)
    total = sum(getattr(array, "size", 0) for array in arrays.values())
    leaves = [leaf for _, leaf in tree_flatten_with_path(inner_state)[0]]
    for name, leaf in zip(mirrored_names(inner_state, params), leaves, strict=True):
        history = name is not None and len(shape_of(leaf)) > len(shape_of(arrays[name])) > 0
        if history or (name is None and shape_of(leaf) == (total,)):
            raise ValueError(
                f"inner holds an array of shape {shape_of(leaf)} that mixes weights (L-BFGS, optax.flatten), so it "
                "cannot follow a topology that moves: use a first-order optimizer on the parameters' own tree."
            )


def check_arrays(plan: Plan, gradients: Tree, masks: Mapping[str, Array]) -> None:
    """Refuse a state of other layers, and gradients that do not fit.

    Raises:
        ValueError: naming the layers.
    """
    names = {layer.name for layer in plan.layers}
    if set(masks) != names:
        raise ValueError(
            f"opt_state has masks for other layers than params; they differ in {sorted(set(masks) ^ names)}."
        )
    arrays = named_leaves(gradients)
    for i in plan.sparse_layers:
        layer = plan.layers[i]
        if layer.name not in arrays:
            raise ValueError(f"gradients has none for layer {layer.name!r}: give zeros if it was not used.")
        for kind, array in (("mask", masks[layer.name]), ("gradient", arrays[layer.name])):
            if shape_of(array) != layer.shape:
                raise errors.wrong_shape(layer, kind, shape_of(array))


def look(
    state: SparseState, due: Array, weights: Mapping[str, Array], gradients: Tree, *, callbacks: bool
) -> tuple[Array, Array]:
    """What only the first step and updates need to know.

    Args:
        state: before the step.
        due: whether an update is due.
        weights: of the sparse layers.
        gradients: of all parameters, if an update reads gradients.
        callbacks: whether NumPy may look.

    Returns:
        Whether these gradients are finite, and whether there ever were weights outside the masks.

    Raises:
        ValueError: if there were, and the values are known (outside ``jit``).
    """

    def closely() -> tuple[Array, Array]:
        floating = [g for g in jax.tree.leaves(gradients) if jnp.issubdtype(g.dtype, jnp.inexact)]
        masks = [state.masks[name] for name in weights]
        call = call_on_host if callbacks else lambda *_: None
        return _all_finite(floating, call), state.unmasked | _any_outside(list(weights.values()), masks, call)

    finite, unmasked = when(due | (state.step == 0), closely, lambda: (jnp.ones((), bool), jnp.asarray(state.unmasked)))
    if not is_traced(unmasked) and unmasked:
        raise ValueError(NOT_MASKED)
    return finite, unmasked


def _all_finite(arrays: Sequence[Array], call: Call) -> Array:
    on_host = call(lambda *given: all_finite(given), (), *arrays)
    if on_host is not None:
        return on_host
    return functools.reduce(jnp.logical_and, (jnp.all(jnp.isfinite(array)) for array in arrays), jnp.ones((), bool))


def _any_outside(weights: Sequence[Array], masks: Sequence[Array], call: Call) -> Array:
    count = len(weights)
    on_host = call(lambda *given: any_outside(given[:count], given[count:]), (), *weights, *masks)
    if on_host is not None:
        return on_host
    outside = (jnp.any(~mask & (weight != 0)) for weight, mask in zip(weights, masks, strict=True))
    return functools.reduce(jnp.logical_or, outside, jnp.zeros((), bool))
