"""Parameters by name in any pytree: what flax, equinox, optax and plain dicts have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path, tree_map_with_path

Tree = Any
Path = tuple[Any, ...]


def named_leaves(tree: Tree) -> dict[str, Any]:
    """The leaves by name, in the tree's order (JAX sorts the keys of dicts).

    A name is the leaf's path, joined by slashes: ``params/Dense_0/kernel``, ``layers/0/weight``.

    Raises:
        ValueError: if two leaves have the same name.
    """
    named: dict[str, Any] = {}
    for path, leaf in tree_flatten_with_path(tree)[0]:
        name = name_of(path)
        if name in named:
            raise ValueError(f"params has two leaves that are spelled {name!r}: rename one of them.")
        named[name] = leaf
    return named


def with_leaves(tree: Tree, named: Mapping[str, Any]) -> Tree:
    """The tree with other leaves under these names."""
    return tree_map_with_path(lambda path, leaf: named.get(name_of(path), leaf), tree)


def zero_outside(tree: Tree, masks: Mapping[str, Array]) -> Tree:
    """The tree with zeros outside the masks, also where it holds NaN or infinities."""
    return with_leaves(tree, {name: active(x, masks[name]) for name, x in named_leaves(tree).items() if name in masks})


def active(values: Array, mask: Array) -> Array:
    """The values where the mask is true, and zero elsewhere."""
    return jnp.where(mask, values, jnp.zeros_like(values))


def zero_state_outside(
    state: Tree, params: Tree, masks: Mapping[str, Array], settled: Sequence[bool] | None = None
) -> Tree:
    """An optimizer's state with zeros outside the masks wherever it is per weight.

    Args:
        state: the optimizer's.
        params: the parameters.
        masks: by layer name.
        settled: for each leaf of the state whether it is so already.
    """
    leaves, structure = jax.tree.flatten(state)
    for i, name in enumerate(weights_of_leaves(state, params)):
        if name is not None and name in masks and not (settled and settled[i]):
            leaves[i] = active(leaves[i], masks[name])
    return jax.tree.unflatten(structure, leaves)


def state_by_weight(state: Tree, params: Tree) -> Iterator[tuple[str, Array]]:
    """Every per-weight array in an optimizer's state, with the name of its parameter."""
    for name, leaf in zip(weights_of_leaves(state, params), jax.tree.leaves(state), strict=True):
        if name is not None:
            yield name, leaf


def weights_of_leaves(state: Tree, params: Tree) -> list[str | None]:
    """For each leaf of an optimizer's state the parameter of which it holds a number for each weight, if of any."""
    shapes = {name: shape_of(leaf) for name, leaf in named_leaves(params).items()}
    leaves = zip(mirrored_names(state, params), jax.tree.leaves(state), strict=True)
    return [name if name is not None and shape_of(leaf) == shapes[name] else None for name, leaf in leaves]


def mirrored_names(state: Tree, params: Tree) -> list[str | None]:
    """For each leaf of an optimizer's state the parameter that it belongs to, if any.

    Optimizers keep what they hold for each weight in trees like the parameters', so the leaf's path ends
    with the parameter's; the longest such end wins.
    """
    names = {_own(path): name_of(path) for path, _ in tree_flatten_with_path(params)[0]}
    paths = [_own(path) for path, _ in tree_flatten_with_path(state)[0]]
    ends = ([path[start:] for start in range(len(path) + 1)] for path in paths)
    return [next((names[end] for end in own_ends if end in names), None) for own_ends in ends]


def name_of(path: Path) -> str:
    """A leaf's name; a tree that is itself one array calls it ``params``."""
    return keystr(_own(path), simple=True, separator="/") or "params"


def shape_of(leaf: Any) -> tuple[int, ...]:
    """A leaf's shape; equinox modules also have leaves that are no arrays, which count as scalars."""
    return tuple(getattr(leaf, "shape", ()))


def is_traced(tree: Tree) -> bool:
    """Whether any leaf is a tracer, whose value is unknown."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def called(equation: Any) -> Any:
    """The trace of a function that is called, such as a jitted one."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(key)
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(equation.invars) and equation.primitive.name != "pallas_call":
            return inner
    return None


def _own(path: Path) -> Path:
    """The path without the ``.value`` by which a flax nnx variable holds its array."""
    return path[:-1] if len(path) > 1 and path[-1] == GetAttrKey("value") else path
