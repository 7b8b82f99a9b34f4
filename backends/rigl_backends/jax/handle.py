"""The handle of a sparse training: a pytree value, and what one can ask of it.

Functions take the optimizer state that holds it, however deep: inside ``optax.chain`` or ``optax.MultiSteps``, a flax
TrainState or the ``opt_state`` of an nnx.Optimizer.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rigl_backends.jax.branches import cond
from rigl_backends.jax.namespace import call_on_host
from rigl_backends.jax.trees import Tree, find_nodes, is_traced, named_leaves, shape_of, varying, zero_tree_outside
from rigl_backends.jax.written import check_written, is_written
from rigl_core.adapter import Layer, Plan, Recipe, SparsityTable, SparsityWarning, all_finite, any_outside, errors

NOT_MASKED = (
    "params are not masked: weights outside the masks were not zero. Call "
    "params = rigl_backends.jax.apply_masks(params, opt_state) once, after init, and let nothing change the updates "
    "that sparsify gives. Inside optax.lookahead, call it on the fast and the slow weights after every step."
)


class SparseState(NamedTuple):
    """All that a resumed training needs besides the parameters; save it as any optax state.

    Attributes:
        inner_state: of the inner transformation.
        masks: bool arrays by layer name, in the layers' shapes; a dense layer's is the scalar True.
        memory: what the recipe remembers of each connection, flat, by kind (`rigl_core.arrays.memory`) and layer name.
        step: int32 scalar, the number of the coming optimizer step.
        deferred: bool scalar, whether an update waits for finite gradients.
        unmasked: bool scalar, whether weights outside the masks were found not to be zero.
        recipe: the recipe that the state was made under (`rigl_backends.jax.written`).
    """

    inner_state: Any
    masks: Mapping[str, Array]
    memory: Mapping[str, Mapping[str, Array]]
    step: Array
    deferred: Array
    unmasked: Array
    recipe: Mapping[str, Any]


def apply_masks(params: Tree, opt_state: Any) -> Tree:
    """The parameters with zeros outside the masks: needed once, after ``init``.

    It masks any tree of the parameters' structure, so also gradients that are to be logged as a truly
    sparse network has them; ``update`` wants them dense.

    Args:
        params: the tree, of which the arrays outside the plan stay as they are.
        opt_state: the state that `sparsify`'s ``init`` or ``update`` gave.

    Raises:
        ValueError: if the tree lacks a layer.
    """
    masks, names = find_state(opt_state).masks, named_leaves(params)
    for name in masks:
        if name not in names:
            raise ValueError(f"params has no array for layer {name!r}: give the tree that init was given.")
    return zero_tree_outside(params, masks)


def masks(opt_state: Any, params: Tree) -> dict[str, Array]:
    """Copies of the masks, as bool arrays by layer name, in the layers' shapes.

    Raises:
        ValueError: if weights outside the masks were found not to be zero, as without `apply_masks`.
    """
    full = _seen_masks(opt_state, params)
    return {name: jnp.array(mask, copy=True) for name, mask in full.items()}


def step(opt_state: Any) -> Array:
    """The number of the coming optimizer step, as an int32 scalar.

    Raises:
        ValueError: if weights outside the masks were found not to be zero, as without `apply_masks`.
    """
    return jnp.array(_checked_state(opt_state).step, copy=True)


def table(opt_state: Any, params: Tree) -> SparsityTable:
    """Density, active and zero weights of each layer, read on the host.

    Raises:
        ValueError: if weights outside the masks were found not to be zero, as without `apply_masks`.
    """
    full = _seen_masks(opt_state, params)
    layers = tuple(Layer(name, mask.shape) for name, mask in full.items())
    return SparsityTable(layers, tuple(int(np.count_nonzero(mask)) for mask in full.values()))


def find_state(opt_state: Any) -> SparseState:
    """The one `SparseState` inside an optimizer's state, with plain arrays.

    Raises:
        ValueError: if there is none, or more than one.
    """
    found = find_nodes(opt_state, SparseState)
    if len(found) != 1:
        raise ValueError(
            f"opt_state holds {len(found)} states of sparsify: give the one that its init() or update() returned."
        )
    inner_state, masks, memory, *scalars, recipe = found[0]
    # Out of the variables in which flax nnx wraps every array.
    plain = {kind: named_leaves(arrays) for kind, arrays in memory.items()}
    number, deferred, unmasked = jax.tree.leaves(scalars)
    return SparseState(inner_state, named_leaves(masks), plain, number, deferred, unmasked, recipe)


def memory_by_layer(state: SparseState, names: Iterable[str]) -> dict[str, dict[str, Array]]:
    """The memory of each of these layers, by kind."""
    return {name: {kind: arrays[name] for kind, arrays in state.memory.items()} for name in names}


def with_memory(state: SparseState, memory: Mapping[str, Mapping[str, Array]]) -> SparseState:
    """The state with the memory of these layers, which have some."""
    return state._replace(memory={kind: {name: own[kind] for name, own in memory.items()} for kind in state.memory})


def _checked_state(opt_state: Any) -> SparseState:
    state = find_state(opt_state)
    check_written(state.recipe)
    if not is_traced(state.unmasked) and np.asarray(state.unmasked).any():
        raise ValueError(NOT_MASKED)
    return state


def _seen_masks(opt_state: Any, params: Tree) -> dict[str, Array]:
    """The masks in the layers' shapes, with a warning if weights lie outside; before the first step they may."""
    state = _checked_state(opt_state)
    full, arrays = full_masks(state, params), named_leaves(params)
    weights = {name: arrays[name] for name in full if hasattr(arrays[name], "__array__")}
    if not is_traced((state, weights)) and np.asarray(state.step).all():
        with jax.ensure_compile_time_eval():
            outside = {name: int(jnp.sum(~full[name] & weight.astype(bool))) for name, weight in weights.items()}
        if any(outside.values()):
            warnings.warn(errors.weights_outside(outside), SparsityWarning, stacklevel=3)
    return full


def full_masks(state: SparseState, params: Tree) -> dict[str, Array]:
    """The masks in the layers' shapes, by name."""
    shapes = {name: shape_of(leaf) for name, leaf in named_leaves(params).items() if name in state.masks}
    return {name: jnp.broadcast_to(state.masks[name], shape) for name, shape in shapes.items()}


def check_arrays(plan: Plan, gradients: Tree, masks: Mapping[str, Array]) -> None:
    """Refuse a state of other layers or of a wrapper's making, and gradients that do not fit.

    Raises:
        ValueError: naming the layers.
    """
    names = {layer.name for layer in plan.layers}
    if set(masks) != names:
        raise ValueError(
            f"opt_state has masks for other layers than params; they differ in {sorted(set(masks) ^ names)}."
        )
    if any(mask.dtype != bool for mask in masks.values()):
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
        for kind, array in (("mask", masks[layer.name]), ("gradient", arrays[layer.name])):
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
