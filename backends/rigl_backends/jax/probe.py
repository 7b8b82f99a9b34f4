"""What an optimizer's state does when the weights of all layers change places, where its trace does not tell."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from rigl_backends.jax.trees import Tree, is_floating, named_leaves

_STEPS = 3
_LARGE = 0.25
"""Rounding changes numbers by less, in 16 bits too; what does not follow the weights changes by more."""


class Trace:
    """An optimizer's ``init`` and ``update``, traced.

    Args:
        inner: the optimizer.
        gradients: of the parameters' structure.
        state: the optimizer's.
        params: the parameters.
        extra_args: of the update, of which arrays and numbers are traced.

    Attributes:
        init: the trace of ``init``, from the parameters' leaves to the state's.
        update: the trace of ``update``, from the leaves of gradients, state, parameters and extra arguments to the
            leaves of updates and state.
        gradients: the names of the gradients' leaves.
        params: the names of the parameters' leaves.
        updates: the names of the updates' leaves.
    """

    def __init__(self, inner: Any, gradients: Tree, state: Any, params: Tree, extra_args: Mapping[str, Any]) -> None:
        leaves, structure = jax.tree.flatten(extra_args)
        traced = [i for i, leaf in enumerate(leaves) if isinstance(leaf, numbers.Number) or hasattr(leaf, "dtype")]

        def update(gradients: Tree, state: Any, params: Tree, given: list[Any]) -> Any:
            own = dict(enumerate(leaves)) | dict(zip(traced, given, strict=True))
            return inner.update(gradients, state, params, **jax.tree.unflatten(structure, [*own.values()]))

        gradients, state, params, given = map(_shapes_of, (gradients, state, params, [leaves[i] for i in traced]))
        self.init = jax.make_jaxpr(inner.init)(params)
        self.update, (updates, _) = jax.make_jaxpr(update, return_shape=True)(gradients, state, params, given)
        self.gradients, self.params, self.updates = ([*named_leaves(tree)] for tree in (gradients, params, updates))

    @property
    def states(self) -> int:
        """The number of leaves of the state."""
        return len(self.init.jaxpr.outvars)


def _shapes_of(tree: Tree) -> Tree:
    """Shapes and dtypes of arrays, which say nothing of devices."""

    def of(leaf: Any) -> Any:
        weak = getattr(leaf, "weak_type", False)
        is_array = hasattr(leaf, "dtype")
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=weak) if is_array else leaf  # type: ignore[no-untyped-call]

    return jax.tree.map(of, tree)


def follows_weights(trace: Trace, names: Collection[str], leaves: Sequence[int]) -> dict[int, bool | None]:
    """Whether leaves of the state change places as the weights do: then each of their numbers belongs to a weight.

    The optimizer takes three steps with random numbers: with all layers as they are, and for each axis with all layers
    turned by one place along it. A matrix of statistics of a layer's rows or columns does not turn with the weights.

    Args:
        trace: the optimizer's.
        names: of the layers.
        leaves: the positions of leaves that have the shape of a layer.

    Returns:
        By position; None for leaves whose numbers are all equal after three steps, which tell nothing.
    """
    axes = max(len(leaf.shape) for leaf in trace.init.out_avals)
    with jax.ensure_compile_time_eval():
        run = jax.jit(lambda params, gradients, rest: _run(trace, params, gradients, rest, leaves))
        before = _numbers_of(run(*_inputs(trace, names, None)))
        after = [_numbers_of(run(*_inputs(trace, names, axis))) for axis in range(axes)]
    return {leaf: _turned([before[i], *(own[i] for own in after)]) for i, leaf in enumerate(leaves)}


def _run(trace: Trace, params: Any, gradients: Any, rest: Any, leaves: Sequence[int]) -> list[Any]:
    init, update = (_without_tracers(own) for own in (trace.init, trace.update))
    state = jaxpr_as_fun(init)(*params)
    for own in gradients:
        state = jaxpr_as_fun(update)(*own, *state, *params, *rest)[-len(state) :]
    return [state[i] for i in leaves]


def _inputs(trace: Trace, names: Collection[str], axis: int | None) -> tuple[list[Any], list[list[Any]], list[Any]]:
    """Random parameters, gradients of each step, and other arguments; of the layers turned along an axis."""
    rng = np.random.default_rng(0)

    def draw(arrays: Sequence[Any], owners: Sequence[str]) -> list[Any]:
        drawn = [_random(array, rng) for array in arrays]
        turns = [
            axis is not None and name in names and axis < array.ndim for name, array in zip(owners, arrays, strict=True)
        ]
        return [jnp.roll(array, 1, axis) if turn else array for array, turn in zip(drawn, turns, strict=True)]

    avals, given = trace.update.in_avals, len(trace.gradients)
    params = draw(trace.init.in_avals, trace.params)
    gradients = [draw(avals[:given], trace.gradients) for _ in range(_STEPS)]
    return params, gradients, [_random(aval, rng) for aval in avals[given + trace.states + len(params) :]]


def _random(like: Any, rng: np.random.Generator) -> Any:
    if is_floating(like):
        return jnp.asarray(rng.normal(size=like.shape), like.dtype)
    return jnp.zeros(like.shape, like.dtype)


def _without_tracers(trace: ClosedJaxpr) -> ClosedJaxpr:
    """A trace with random numbers in place of unknown ones that it refers to."""
    rng = np.random.default_rng(1)
    consts = [_random(jax.typeof(x), rng) if isinstance(x, jax.core.Tracer) else x for x in trace.consts]
    return ClosedJaxpr(trace.jaxpr, consts)


def _numbers_of(arrays: Sequence[Any]) -> list[npt.NDArray[np.float64]]:
    return [np.asarray(array, np.float64) for array in arrays]


def _turned(runs: Sequence[npt.NDArray[np.float64]]) -> bool | None:
    """Whether an array, before and after all layers turned along each axis, turned with them."""
    before, *after = runs
    spread = np.linalg.norm(before - before.mean())
    if not spread > 0:
        return None
    errors = [np.linalg.norm(own - np.roll(before, 1, axis)) for axis, own in enumerate(after[: before.ndim])]
    return bool(max(errors) < _LARGE * spread)
