"""Branches of a step, where the condition may be known or traced.

A change under a traced condition is a loop of at most one round: XLA lets a loop work in place, while it copies what
goes through the branches of a cond, at every step, whether anything changes or not. Under a known condition it is a
plain branch, since an eager cond would be compiled anew each time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from rigl_backends.jax.trees import cast_like, is_traced, varying, widened

_T = TypeVar("_T")


def cond(condition: Array, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """One of two results."""
    if is_traced(condition):
        return lax.cond(condition, then, otherwise)
    return then() if condition else otherwise()


def changed_if(condition: Array, change: Callable[..., _T], *values: Any) -> _T:
    """``change(*values)`` if the condition holds, else the values, in whose memory and dtypes the results are.

    Backwards through a step it is a cond.

    Args:
        condition: bool scalar.
        change: gives as many trees as it takes, of the same structures and shapes.
        *values: trees of arrays.
    """
    result: Any = values
    if not is_traced(condition):
        return change(*values) if condition else result
    leaves, structure = jax.tree.flatten(values)
    while True:
        values = jax.tree.unflatten(structure, leaves)
        trace = jax.make_jaxpr(lambda *values: cast_like(values, change(*values)))(*values)
        wider = [varying(leaf, after) for leaf, after in zip(leaves, trace.out_avals, strict=True)]
        if all(new is leaf for new, leaf in zip(wider, leaves, strict=True)):
            break
        leaves = wider  # what the change makes of them differs between devices
    changed: _T = jax.tree.unflatten(structure, _changed_if(trace.jaxpr, condition, leaves, trace.consts))
    return changed


def either(condition: Array, then: Callable[..., _T], otherwise: Callable[..., _T], *values: Any) -> _T:
    """``then(*values)`` if the condition holds, else ``otherwise(*values)``, in the memory of the values.

    As for `changed_if`; a traced condition's functions take values in dtypes that hold the results of ``otherwise``.
    """
    if not is_traced(condition):
        return then(*values) if condition else otherwise(*values)
    results = jax.eval_shape(otherwise, *values)
    values = jax.tree.map(lambda value, result: widened(value, result.dtype), values, results)
    changed: Any = changed_if(condition, then, *values)
    return changed_if(~condition, otherwise, *changed)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _changed_if(change: Jaxpr, condition: Array, values: list[Any], constants: list[Any]) -> list[Any]:
    def round_(state: tuple[Array, list[Any]]) -> tuple[Array, list[Any]]:
        again, values = state
        return again & False, list(map(varying, _run(change, values, constants), values))

    changed: list[Any] = lax.while_loop(lambda state: state[0], round_, (condition, values))[1]
    return changed


@_changed_if.defjvp
def _changed_if_with_tangents(change: Jaxpr, primals: Any, tangents: Any) -> Any:
    def branch(condition: Array, values: list[Any], constants: list[Any]) -> Any:
        return lax.cond(condition, lambda *both: _run(change, *both), lambda values, _: values, values, constants)

    return jax.jvp(branch, primals, tangents)


def _run(trace: Jaxpr, values: list[Any], constants: list[Any]) -> list[Any]:
    return list(jaxpr_as_fun(ClosedJaxpr(trace, constants))(*values))
