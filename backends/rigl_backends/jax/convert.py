"""A saved state with masks, brought to active weights, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from rigl_backends.jax.active_trees import dense, with_shapes, with_values
from rigl_backends.jax.active_weight import Topology
from rigl_backends.jax.handle import SparseState
from rigl_backends.jax.link import Link
from rigl_backends.jax.state import leaves_at, with_leaves_at
from rigl_backends.jax.storage import names_of_active
from rigl_backends.jax.trees import Tree, find_nodes
from rigl_core.adapter import Plan, saved_indices

if TYPE_CHECKING:
    from rigl_backends.jax.transformation import SparseTraining


def in_storage(
    training: SparseTraining,
    plan: Plan,
    opt_state: Any,
    state: SparseState,
    params: Tree,
    extra_args: Mapping[str, Any],
) -> SparseState:
    """The state with its layers held as the training holds them.

    Args:
        training: says how.
        plan: of the training.
        opt_state: the tree that holds the state.
        state: the state.
        params: the parameters that were saved with it.
        extra_args: what ``update`` gets besides.

    Raises:
        ValueError: if gradients are accumulated in another form.
    """
    had = {name for name, mask in state.masks.items() if isinstance(mask, Topology)}
    wanted = names_of_active(training.storage, plan, with_shapes(params))
    if had == set(wanted.values()):
        return state
    if find_nodes(opt_state, optax.MultiStepsState):
        raise ValueError(
            "opt_state holds gradients that optax.MultiSteps accumulates, in the form of another storage: go on with "
            "the storage that it was saved with."
        )
    masks = _masks(plan, state, wanted)
    values = with_values(params)
    held = training.held_by(plan, values, state.inner_state, values, extra_args)
    begun, leaves = jax.tree.leaves(training.inner.init(dense(params))), dict[int, Array]()
    for name in had ^ set(wanted.values()):
        positions = held.positions[name]
        for i, leaf in zip(positions, leaves_at(state.inner_state, positions), strict=True):
            leaves[i] = masks[name].values(leaf) if name not in had else _whole(state.masks[name], leaf, begun[i])
    return state._replace(masks=masks, inner_state=with_leaves_at(state.inner_state, leaves))


def _masks(plan: Plan, state: SparseState, wanted: Mapping[int, str]) -> dict[str, Any]:
    """The masks, with topologies in place of those of the wanted layers."""
    links = [mask.link for mask in state.masks.values() if isinstance(mask, Topology)]
    masks = {name: mask.mask() if isinstance(mask, Topology) else mask for name, mask in state.masks.items()}
    indices = saved_indices(plan, tuple(wanted), masks) if wanted else {}
    link = links[0] if links else Link()
    return masks | {wanted[i]: Topology.of(plan.layers[i], index, link) for i, index in indices.items()}


def _whole(topology: Topology, array: Array, outside: Array) -> Array:
    """Numbers of active weights as an array of the layer's shape, with others outside the mask."""
    whole = topology.index().dense(np.asarray(array), np.asarray(outside).reshape(-1))
    return jnp.asarray(whole).reshape(topology.layout.shape)
