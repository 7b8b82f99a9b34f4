"""The handle of a sparse training: a pytree value, and what one can ask of it.

Functions take the optimizer state that holds it, however deep: inside ``optax.chain`` or ``optax.MultiSteps``, a flax
TrainState or the ``opt_state`` of an nnx.Optimizer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rigl_backends.jax.active_trees import as_active, belongs, dense, is_active, with_values
from rigl_backends.jax.active_weight import Topology
from rigl_backends.jax.namespace import is_on_host
from rigl_backends.jax.replicas import compare_copies
from rigl_backends.jax.trees import Tree, find_nodes, is_traced, named_leaves, shape_of, with_leaves, zero_tree_outside
from rigl_backends.jax.written import check_written
from rigl_core.adapter import Layer, SparsityTable, SparsityWarning, errors

NOT_MASKED = (
    "params are not masked: weights outside the masks were not zero. Call "
    "params = rigl_backends.jax.apply_masks(params, opt_state) once, after init, and let nothing change the updates "
    "that sparsify gives. Inside optax.lookahead, call it on the fast and the slow weights after every step. Active "
    "weights must have the topology of the state: restore both together."
)


class SparseState(NamedTuple):
    """All that a resumed training needs besides the parameters; save it as any optax state.

    Attributes:
        inner_state: of the inner transformation.
        masks: bool arrays by layer name, in the layers' shapes; a dense layer's is the scalar True, and that of a layer
            of active weights a `rigl_backends.jax.active_weight.Topology`.
        memory: what the recipe remembers of each connection, by kind (`rigl_core.arrays.memory`) and layer name, in the
            layers' shapes.
        step: int32 scalar, the number of the coming optimizer step.
        deferred: bool scalar, whether an update waits for finite gradients.
        unmasked: bool scalar, whether weights outside the masks were found not to be zero.
        recipe: the recipe that the state was made under (`rigl_backends.jax.written`).
    """

    inner_state: Any
    masks: Mapping[str, Any]
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
    masks, names = find_state(opt_state).masks, named_leaves(params, is_leaf=is_active)
    for name in masks:
        if name not in names:
            raise ValueError(f"params has no array for layer {name!r}: give the tree that init was given.")
    topologies = {name: mask for name, mask in masks.items() if isinstance(mask, Topology)}
    whole = {name: dense(names[name]) for name in masks if name not in topologies}
    params = with_leaves(params, whole, is_leaf=is_active)
    masked = zero_tree_outside(params, {name: mask for name, mask in masks.items() if name not in topologies})
    weights = {name: as_active(names[name], topology) for name, topology in topologies.items()}
    return with_leaves(masked, weights, is_leaf=is_active)


def masks(opt_state: Any, params: Tree) -> dict[str, Array]:
    """Copies of the masks, as bool arrays by layer name, in the layers' shapes, sharded like the weights.

    Where processes share the layers, all of them must call it.

    Raises:
        ValueError: as for `table`.
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

    Where processes share the layers, all of them must call it.

    Raises:
        ValueError: if weights outside the masks were found not to be zero, as without `apply_masks`, or if copies of
            a mask differ between devices (`check_replicas`).
    """
    full = _seen_masks(opt_state, params)
    layers = tuple(Layer(name, mask.shape) for name, mask in full.items())
    return SparsityTable(layers, tuple(_count(mask) for mask in full.values()))


def check_replicas(opt_state: Any) -> None:
    """Compare the copies of each mask on all devices; every process must call it, at the same time.

    It exchanges one number for each mask and device. `masks` and `table` compare too, but only the copies in their own
    process, so that one process alone may call them.

    Args:
        opt_state: the state that `sparsify`'s ``update`` gave, or a tree that holds it.

    Raises:
        ValueError: if copies differ, naming the layers.
    """
    compare_copies(find_state(opt_state).masks, over_processes=jax.process_count() > 1)


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
    own = named_leaves(masks, is_leaf=lambda node: isinstance(node, Topology))
    own = {name: mask.plain() if isinstance(mask, Topology) else mask for name, mask in own.items()}
    return SparseState(inner_state, own, plain, number, deferred, unmasked, recipe)


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
    compare_copies(state.masks, over_processes=False)
    full, arrays = full_masks(state, params), named_leaves(params, is_leaf=is_active)
    # Active weights have nothing outside, if they belong to the state's topology.
    weights = {name: dense(arrays[name]) for name in full if not belongs(arrays[name], state.masks[name])}
    weights = {name: weight for name, weight in weights.items() if hasattr(weight, "__array__")}
    if not is_traced((state, weights)) and np.asarray(state.step).all():
        with jax.ensure_compile_time_eval():
            outside = {name: int(jnp.sum(~full[name] & weight.astype(bool))) for name, weight in weights.items()}
        if any(outside.values()):
            warnings.warn(errors.weights_outside(outside), SparsityWarning, stacklevel=3)
    return full


def _count(mask: Array) -> int:
    """The number of true entries; of shards, counted where they lie."""
    return int(np.count_nonzero(mask) if is_on_host(mask) else jnp.sum(mask, dtype=jnp.int32))


def full_masks(state: SparseState, params: Tree) -> dict[str, Array]:
    """The masks in the layers' shapes, by name."""
    leaves = named_leaves(with_values(params))
    shapes = {name: shape_of(leaf) for name, leaf in leaves.items() if name in state.masks}

    def full(mask: Any, shape: tuple[int, ...]) -> Array:
        return mask.mask() if isinstance(mask, Topology) else jnp.broadcast_to(mask, shape)

    return {name: full(state.masks[name], shape) for name, shape in shapes.items()}
