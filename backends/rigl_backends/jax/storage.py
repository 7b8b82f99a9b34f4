"""How layers are held: which become active weights, and what they begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from rigl_backends.jax.active_trees import active_weights, is_active
from rigl_backends.jax.active_weight import Topology
from rigl_backends.jax.layers import transposed_layers
from rigl_backends.jax.link import Link
from rigl_backends.jax.trees import Tree, is_traced, name_of, named_leaves
from rigl_core.adapter import Clock, Plan, Recipe, Storage, active_layers, first_indices

if TYPE_CHECKING:
    from rigl_backends.jax.transformation import SparseTraining


def check_storage(recipe: Recipe, storage: Storage, *, callbacks: bool) -> None:
    """Refuse recipes that active weights of JAX cannot follow.

    Raises:
        ValueError: with the reason and the remedy.
    """
    if storage == "masks":
        return
    reason = None
    if recipe.ramp is not None:
        reason = f"{recipe.method} has a ramp, and compiled steps need a number of active weights that stays"
    elif recipe.rule.changes_gradient or "sign" in recipe.rule.memories:
        reason = f"{recipe.method} changes gradients or remembers signs, which layers of active weights in JAX do not"
    elif not callbacks:
        reason = "the kernels of sparse layers are callbacks, and callbacks is False"
    if reason is not None:
        raise ValueError(f"storage asks for layers to be held as active weights, but {reason}: use 'masks'.")


def first_topologies(
    training: SparseTraining, plan: Plan, params: Tree, scores: Mapping[str, Any] | None
) -> dict[str, Topology]:
    """The topology of each layer that is to hold active weights alone, before the first step, by name.

    Args:
        training: says how layers are held.
        plan: the plan.
        params: dense, or their shapes; or with active weights, which keep their topologies.
        scores: what chooses the initial topology, if the recipe asks for some.

    Raises:
        TypeError, ValueError: if the storage is unknown, or a layer that it names cannot be held so.
    """
    found = {name: weight.topology for name, weight in active_weights(params).items()}
    if found and training.storage == "masks":
        raise ValueError(
            f"params holds active weights of {sorted(found)}, and storage is 'masks': give them as "
            "rigl_backends.jax.dense(params) makes them."
        )
    if not found:
        found = _chosen(training, plan, params, scores)
    reads = Clock(training.schedule).due and plan.recipe.rule.reads_gradient
    return {name: one.at_step(1 if reads else 0) for name, one in found.items()}


def _chosen(
    training: SparseTraining, plan: Plan, params: Tree, scores: Mapping[str, Any] | None
) -> dict[str, Topology]:
    arrays, names = named_leaves(params), names_of_active(training.storage, plan, params)
    if not names:
        return {}
    if is_traced([arrays[name] for name in names.values()]):
        raise ValueError("init is inside jit, and storage='active' chooses connections on the host: call it outside.")
    dense = {i: np.asarray(arrays[name]).reshape(-1) for i, name in names.items() if is_made(arrays[name])}
    link, indices = Link(), first_indices(plan, tuple(names), dense, scores)
    return {names[i]: Topology.of(plan.layers[i], index, link) for i, index in indices.items()}


def names_of_active(storage: Storage, plan: Plan, params: Tree) -> dict[int, str]:
    """The layers to hold as active weights: positions in the plan, and names."""
    active = active_layers(plan, storage, _why_not(plan, params), convolutions=True)
    return {i: plan.layers[i].name for i in active}


def is_made(leaf: Any) -> bool:
    """Whether a leaf has numbers, and is no mere shape."""
    return hasattr(leaf, "__array__")


def held_values(params: Tree, topologies: Mapping[str, Topology]) -> Tree:
    """The tree as an optimizer sees it: with the values of active weights in place of dense arrays."""

    def one(path: Any, leaf: Any) -> Any:
        name = name_of(path)
        if name not in topologies:
            return leaf
        if is_active(leaf):
            return leaf.values
        if not is_made(leaf):
            raise ValueError(f"layer {name!r} was never made: begin with rigl_backends.jax.begin(tx, init, key).")
        return topologies[name].values(jnp.asarray(leaf))

    return jax.tree_util.tree_map_with_path(one, params, is_leaf=is_active)


def _why_not(plan: Plan, params: Tree) -> dict[str, str]:
    """Why layers cannot be held as active weights, by name."""
    reasons, arrays, transposed = dict[str, str](), named_leaves(params), transposed_layers(params)
    for layer in plan.layers:
        dtype = arrays[layer.name].dtype
        if dtype != np.float32:
            reasons[layer.name] = f"is {dtype}, and the kernels multiply float32"
        elif layer.name in transposed:
            reasons[layer.name] = "is a transposed convolution, for which there are no kernels"
        elif jax.default_backend() != "cpu":
            reasons[layer.name] = f"is on a {jax.default_backend()}, and the kernels run on CPUs"
    return reasons
