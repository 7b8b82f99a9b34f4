"""Branches, where the condition may be known or traced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from rigl_backends.jax.trees import is_traced

_T = TypeVar("_T")


def when(condition: Array, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """One of two results; where the condition is known a plain branch, since an eager cond compiles anew each time."""
    if is_traced(condition):
        return lax.cond(condition, then, otherwise)
    return then() if condition else otherwise()


def once(condition: Array, change: Callable[[_T], _T], value: _T) -> _T:
    """``change(value)`` if the condition holds, else ``value``, of whose dtypes the result is.

    As a loop of at most one round: XLA lets a loop work in place, while what goes through the branches of a cond is
    copied, at every step, whether anything changes or not. Backwards through a step it is a cond.
    """
    if not is_traced(condition):
        return change(value) if condition else value
    trace = jax.make_jaxpr(lambda value: with_dtypes_of(value, change(value)))(value)
    leaves, structure = jax.tree.flatten(value)
    result: _T = jax.tree.unflatten(structure, _once(trace.jaxpr, condition, leaves, trace.consts))
    return result


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _once(change: Jaxpr, condition: Array, value: list[Any], constants: list[Any]) -> list[Any]:
    def round_(state: tuple[Array, list[Any]]) -> tuple[Array, list[Any]]:
        again, value = state
        return again & False, _run(change, value, constants)

    changed: list[Any] = lax.while_loop(lambda state: state[0], round_, (condition, value))[1]
    return changed


@_once.defjvp
def _once_with_tangents(change: Jaxpr, primals: Any, tangents: Any) -> Any:
    def branch(condition: Array, value: list[Any], constants: list[Any]) -> Any:
        return lax.cond(condition, lambda *both: _run(change, *both), lambda value, _: value, value, constants)

    return jax.jvp(branch, primals, tangents)


def _run(trace: Jaxpr, value: list[Any], constants: list[Any]) -> list[Any]:
    return list(jaxpr_as_fun(ClosedJaxpr(trace, constants))(*value))


def with_dtypes_of(like: _T, tree: _T) -> _T:
    """The tree in the dtypes of another one of its structure."""
    converted: _T = jax.tree.map(lambda x, y: x if x.dtype == y.dtype else x.astype(y.dtype), tree, like)
    return converted
