"""What is JAX's own in a step of Keras: branches may be traced, and what they write must be returned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from rigl_backends.jax import branches
from rigl_backends.jax.whole import flat_calling_namespace as xp
from rigl_core.adapter import Counts, Plan, Tables

__all__ = ["choose", "counts", "either", "no_gradients", "not_finite", "number", "xp"]

choose = branches.cond


def number(variable: keras.Variable) -> Any:
    """A variable's number, which may be traced."""
    return jnp.asarray(variable.value)


def counts(plan: Plan, update: Any, pool: int) -> Counts:
    """How many connections an update keeps and grows in a pool; its number may be traced."""
    tables: Tables = jax.tree.map(jnp.asarray, plan.tables)
    return tables.counts(update, pool)


def not_finite(arrays: Sequence[Any]) -> Any:
    """Whether any number is NaN or infinite."""
    return ~jnp.all(jnp.stack([jnp.all(jnp.isfinite(array)) for array in arrays]))


def either(condition: Any, then: Callable[[], None], otherwise: Callable[[], None], variables: Sequence[Any]) -> None:
    """One of two changes of some variables, which read no others."""

    def changed(change: Callable[[], None]) -> Callable[..., Sequence[Any]]:
        def values_after(*values: Any) -> Sequence[Any]:
            with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
                change()
            return tuple(scope.get_current_value(variable) for variable in variables)

        return values_after

    before = [variable.value for variable in variables]
    after = branches.either(condition, changed(then), changed(otherwise), *before)
    for variable, value in zip(variables, after, strict=True):
        variable.assign(value)


def no_gradients() -> Any:
    """Where a step is made: JAX computes gradients only where it is asked to."""
    return contextlib.nullcontext()
