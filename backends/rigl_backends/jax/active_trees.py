"""Trees of parameters in which some layers hold only their active weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rigl_backends.jax.active_weight import ActiveWeight, Topology
from rigl_backends.jax.trees import Tree, is_traced, name_of, spec


def dense(tree: Tree) -> Tree:
    """A weight as the dense array that it stands for, with zeros outside the mask; or a tree with all its weights so.

    Averages of parameters are averages of such arrays; `apply_masks` makes active weights of them again.
    """

    def one(node: Any) -> Any:
        if not is_active(node):
            return node
        layout = node.layout
        if not is_traced(node):
            whole = node.topology.index().dense(np.asarray(node.values))
            return jnp.asarray(whole).reshape(layout.shape)
        flat = node.topology.flat()
        zeros = jnp.zeros(layout.rows * layout.cols, node.values.dtype)
        return zeros.at[flat].set(node.values, unique_indices=True).reshape(layout.shape)

    return jax.tree.map(one, tree, is_leaf=is_active)


def is_active(node: Any) -> bool:
    """Whether a node of a tree is an `ActiveWeight`."""
    return isinstance(node, ActiveWeight)


def active_weights(tree: Tree) -> dict[str, ActiveWeight]:
    """The active weights in a tree, by name."""
    found = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_active)[0]
    return {name_of(path): node for path, node in found if is_active(node)}


def with_values(tree: Tree) -> Tree:
    """The tree as an optimizer sees it: with the values of active weights in their place."""
    return jax.tree.map(lambda node: node.values if is_active(node) else node, tree, is_leaf=is_active)


def with_shapes(tree: Tree) -> Tree:
    """The tree as a plan sees it: with the dense shapes of active weights in their place."""

    def shape(node: Any) -> Any:
        return spec(node.layout.shape, node.values.dtype) if is_active(node) else node

    return jax.tree.map(shape, tree, is_leaf=is_active)


def as_active(array: Any, topology: Topology) -> ActiveWeight:
    """A dense array, or active weights of any topology, as those of a topology: what lies outside is gone.

    Raises:
        ValueError: if the layer has another shape.
    """
    layout = topology.layout
    if belongs(array, topology):
        return topology.weight(array.values)
    if (whole := dense(array)).shape != layout.shape:
        raise ValueError(f"params has an array of shape {whole.shape} for layer {layout.name!r} of {layout.shape}.")
    return topology.weight(topology.values(jnp.asarray(whole)))


def belongs(array: Any, topology: Topology) -> bool:
    """Whether it is known that an array holds the active weights of a topology."""
    if not is_active(array) or is_traced((array, topology)):
        return False
    return array.layout == topology.layout and np.array_equal(array.marks[:2], topology.marks[:2])


def check_held_alike(weights: Mapping[str, ActiveWeight], topologies: Mapping[str, Topology]) -> None:
    """Refuse parameters that hold other layers as active weights than the state, or in other numbers.

    Raises:
        ValueError: naming the layers.
    """
    if set(weights) != set(topologies):
        raise ValueError(
            f"params and opt_state hold different layers as active weights; they differ in "
            f"{sorted(set(weights) ^ set(topologies))}: call params = rigl_backends.jax.apply_masks(params, opt_state) "
            "once, after init."
        )
    for name, weight in weights.items():
        topology = topologies[name]
        weight.check_dtypes()
        if weight.layout != topology.layout or weight.columns.shape != topology.columns.shape:
            raise ValueError(
                f"params and opt_state hold layer {name!r} in different topologies, of {weight.columns.shape[0]} and "
                f"{topology.columns.shape[0]} weights: restore weights and state together."
            )
