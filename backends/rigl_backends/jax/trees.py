"""Parameters by name in any pytree: what flax, equinox, optax and plain dicts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path, tree_map_with_path

Tree = Any
Path = tuple[Any, ...]
_T = TypeVar("_T")


def named_leaves(tree: Tree, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """The leaves by name, in the tree's order (JAX sorts the keys of dicts).

    A name is the leaf's path, joined by slashes: ``params/Dense_0/kernel``, ``layers/0/weight``.

    Raises:
        ValueError: if two leaves have the same name.
    """
    named: dict[str, Any] = {}
    for path, leaf in tree_flatten_with_path(tree, is_leaf)[0]:
        name = name_of(path)
        if name in named:
            raise ValueError(f"params has two leaves that are spelled {name!r}: rename one of them.")
        named[name] = leaf
    return named


def with_leaves(tree: Tree, named: Mapping[str, Any], is_leaf: Callable[[Any], bool] | None = None) -> Tree:
    """The tree with other leaves under these names."""
    return tree_map_with_path(lambda path, leaf: named.get(name_of(path), leaf), tree, is_leaf=is_leaf)


def zero_outside(values: Array, mask: Array) -> Array:
    """The values where the mask is true, and zero elsewhere, also where there was NaN or infinity."""
    return jnp.where(mask, values, jnp.zeros_like(values))


def zero_tree_outside(tree: Tree, masks: Mapping[str, Array]) -> Tree:
    """The tree with zeros outside the masks, which are given by name."""
    leaves = named_leaves(tree)
    return with_leaves(tree, {name: zero_outside(leaves[name], mask) for name, mask in masks.items() if name in leaves})


def find_nodes(tree: Tree, kind: type) -> list[Any]:
    """The nodes of this type."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in nodes if isinstance(node, kind)]


def owners(tree: Any, params: Tree) -> list[str | None]:
    """For each leaf the parameter that it belongs to, if any.

    Optimizers keep what they hold for each weight in trees like the parameters', so the leaf's path ends
    with the parameter's; the longest such end wins.
    """
    names = {_own_path(path): name_of(path) for path, _ in tree_flatten_with_path(params)[0]}
    paths = [_own_path(path) for path, _ in tree_flatten_with_path(tree)[0]]
    ends = ([path[start:] for start in range(len(path) + 1)] for path in paths)
    return [next((names[end] for end in own_ends if end in names), None) for own_ends in ends]


def name_of(path: Path) -> str:
    """A leaf's name; a tree that is itself one array calls it ``params``."""
    return keystr(_own_path(path), simple=True, separator="/") or "params"


def _own_path(path: Path) -> Path:
    """The path without the ``.value`` by which a flax nnx variable holds its array."""
    return path[:-1] if len(path) > 1 and path[-1] == GetAttrKey("value") else path


def shape_of(leaf: Any) -> tuple[int, ...]:
    """A leaf's shape; equinox modules also have leaves that are no arrays, which count as scalars."""
    return tuple(getattr(leaf, "shape", ()))


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is an array of real floating-point numbers."""
    return hasattr(leaf, "dtype") and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def is_traced(tree: Tree) -> bool:
    """Whether any leaf is a tracer, whose value is unknown."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def cast_like(like: _T, tree: _T) -> _T:
    """The tree in the dtypes of another one of its structure."""
    cast: _T = jax.tree.map(lambda x, y: x if x.dtype == y.dtype else x.astype(y.dtype), tree, like)
    return cast


def widened(array: Array, dtype: Any) -> Array:
    """The array in a dtype that holds its numbers and those of another dtype."""
    return array if array.dtype == dtype else array.astype(jnp.promote_types(array.dtype, dtype))


def varying(array: Array, *like: Tree) -> Array:
    """The array, marked as one that differs between the devices of a ``shard_map`` if any of these arrays does."""
    axes: frozenset[str] = frozenset().union(*(_varies_over(leaf) for leaf in jax.tree.leaves(like)))
    missing = tuple(axes - _varies_over(array))
    if not missing:
        return array
    if hasattr(lax, "pcast"):
        marked: Array = lax.pcast(array, missing, to="varying")
        return marked
    marked_so: Array = lax.pvary(array, missing)  # type: ignore[attr-defined]  # before JAX 0.8.2
    return marked_so


def spec(shape: Sequence[int], dtype: Any) -> Any:
    """The shape and the dtype of an array."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _varies_over(leaf: Any) -> frozenset[str]:
    kind = leaf if isinstance(leaf, jax.core.ShapedArray) else jax.typeof(leaf)
    newest: frozenset[str] = getattr(getattr(kind, "mat", None), "varying", frozenset())
    axes: frozenset[str] = getattr(kind, "vma", newest)
    return axes


def called(equation: Any) -> Any:
    """The trace of a function that an equation of a trace calls, such as a jitted one; None if it calls none."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(key)
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(equation.invars) and equation.primitive.name != "pallas_call":
            return inner
    return None
