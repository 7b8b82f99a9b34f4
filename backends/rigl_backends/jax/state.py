"""The state of a sparse training, a pytree value, and what one can ask of it.

Every function takes the optimizer state that holds it, however deep: inside ``optax.chain`` or
``optax.MultiSteps``, a flax TrainState or the ``opt_state`` of an nnx.Optimizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rigl_backends.jax.trees import Tree, is_traced, named_leaves, shape_of, zero_outside
from rigl_core.model.layers import Layer
from rigl_core.model.table import SparsityTable

NOT_MASKED = (
    "params are not masked: weights outside the masks were not zero. Call "
    "params = rigl_backends.jax.apply_masks(params, opt_state) once, after init, and let nothing change the updates "
    "that sparsify gives."
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
    """

    inner_state: Any
    masks: Mapping[str, Array]
    memory: Mapping[str, Mapping[str, Array]]
    step: Array
    deferred: Array
    unmasked: Array


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
    return zero_outside(params, masks)


def masks(opt_state: Any, params: Tree) -> dict[str, Array]:
    """Copies of the masks, as bool arrays by layer name, in the layers' shapes.

    Raises:
        ValueError: if weights outside the masks were found not to be zero, as without `apply_masks`.
    """
    return {name: jnp.array(mask, copy=True) for name, mask in _full_masks(opt_state, params).items()}


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
    full = _full_masks(opt_state, params)
    layers = tuple(Layer(name, mask.shape) for name, mask in full.items())
    return SparsityTable(layers, tuple(int(np.count_nonzero(mask)) for mask in full.values()))


def find_state(opt_state: Any) -> SparseState:
    """The one `SparseState` inside an optimizer's state, with plain arrays.

    Raises:
        ValueError: if there is none, or more than one.
    """
    found = _find(opt_state, SparseState)
    if len(found) != 1:
        raise ValueError(
            f"opt_state holds {len(found)} states of sparsify: give the one that its init() or update() returned."
        )
    inner_state, masks, memory, *scalars = found[0]
    # Out of the variables in which flax nnx wraps every array.
    plain = {kind: named_leaves(arrays) for kind, arrays in memory.items()}
    return SparseState(inner_state, named_leaves(masks), plain, *jax.tree.leaves(scalars))


def by_layer(memory: Mapping[str, Mapping[str, Array]], names: Iterable[str]) -> dict[str, dict[str, Array]]:
    """A state's memory, by layer name and kind."""
    return {name: {kind: arrays[name] for kind, arrays in memory.items()} for name in names}


def by_kind(kinds: Iterable[str], memory: Mapping[str, Mapping[str, Array]]) -> dict[str, dict[str, Array]]:
    """The memory as a state has it."""
    return {kind: {name: own[kind] for name, own in memory.items()} for kind in kinds}


def holds(tree: Any, kind: type) -> bool:
    """Whether a transformation's state has a node of this type in it."""
    return bool(_find(tree, kind))


def _find(tree: Any, kind: type) -> list[Any]:
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def _checked_state(opt_state: Any) -> SparseState:
    state = find_state(opt_state)
    if not is_traced(state.unmasked) and np.any(state.unmasked):
        raise ValueError(NOT_MASKED)
    return state


def _full_masks(opt_state: Any, params: Tree) -> dict[str, Array]:
    state = _checked_state(opt_state)
    shapes = {name: shape_of(leaf) for name, leaf in named_leaves(params).items() if name in state.masks}
    return {name: jnp.broadcast_to(state.masks[name], shape) for name, shape in shapes.items()}
