"""Which state of an optimizer stays zero outside the masks by itself, and needs no masking after every step."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

import jax
import numpy as np

from rigl_backends.jax.trees import Tree, called, mirrored_names, weights_of_leaves

_FINITE = object()
"""What is known of a number that stands in the program."""
_Known = Any
"""Of an array: the name of the layer outside whose mask it is zero, `_FINITE`, or None."""

_OF_ONE = ("neg", "abs", "sqrt", "sign", "square", "convert_element_type", "copy", "reduce_precision")
_OF_SEVERAL = ("add", "sub", "add_any", "max", "min")


def stays_zero(
    update: Callable[..., Any], gradients: Tree, state: Tree, params: Tree, names: Container[str]
) -> list[bool]:
    """For each leaf of an optimizer's next state, whether it is zero wherever gradients, weights and state are.

    Read from the optimizer's trace: its state must be made of them by the few operations on single elements of
    which momentum and second moments consist, with factors that stand in the program. What passes a clipping by norm
    is not among it, which may divide by NaN; neither is anything unknown here.

    Args:
        update: maps gradients, state and parameters to updates and the next state.
        gradients: of the parameters' structure.
        state: the optimizer's.
        params: the parameters.
        names: of the layers that have masks.
    """
    trace = jax.make_jaxpr(lambda *trees: update(*trees)[1])(gradients, state, params)
    owned = [name for tree in (gradients, state, params) for name in weights_of_leaves(tree, params)]
    given = [name if name is not None and name in names else None for name in owned]
    found = _walk(trace.jaxpr, given)
    owners = mirrored_names(state, params)
    return [name is not None and name == owner for name, owner in zip(found, owners, strict=True)]


def _walk(jaxpr: Any, given: Sequence[_Known]) -> list[_Known]:
    known = dict(zip(jaxpr.invars, given, strict=True))

    def find(atom: Any) -> _Known:
        if hasattr(atom, "val"):
            return _FINITE if np.isfinite(np.asarray(atom.val)).all() else None
        return known.get(atom)

    for equation in jaxpr.eqns:
        results = _results(equation, [find(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [find(atom) for atom in jaxpr.outvars]


def _results(equation: Any, inputs: list[_Known]) -> Sequence[_Known]:
    kind = equation.primitive.name
    inner = called(equation)
    if inner is not None:
        return _walk(inner, inputs)
    if kind == "select_n":
        inputs = inputs[1:]
    elif kind == "mul":
        inputs = [one for one in inputs if one is not _FINITE]
    elif kind == "integer_pow":
        inputs = inputs if equation.params["y"] > 0 else [None]
    elif kind not in _OF_ONE + _OF_SEVERAL:
        inputs = [None]
    agreed = bool(inputs) and all(one is inputs[0] or one == inputs[0] for one in inputs) and inputs[0] is not _FINITE
    return [inputs[0] if agreed else None] * len(equation.outvars)
