"""What an optimizer does with each weight, read from its trace.

Every array of the trace is followed from the gradients, weights and state to the updates and the next state:

- An array *belongs* to a layer if it is made of that layer's arrays by operations on single elements, with numbers that
  all elements share, such as a norm. Then each of its numbers belongs to one weight, whatever its shape.
- *Outside* the layer's mask its numbers may be known: 0, or those that were in the state before.
- It is *still* if it is a product with the number 0: a layer with still updates is not trained.

What passes another operation, such as a product of matrices, belongs to no layer as far as the trace tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rigl_backends.jax.trees import called

FREE, MIXED = "", "\0"
"""Owners of what no weight has a part in, or that all elements share; and of what weights have a part in, mixed."""


class Fresh(NamedTuple):
    """What a leaf of the state was before the step."""

    leaf: int


class Known(NamedTuple):
    """What is known of an array.

    Attributes:
        owner: the layer that it belongs to, `FREE` or `MIXED`.
        outside: outside the owner's mask, a number or `Fresh`; None if it is not known. With `FREE`, everywhere.
        still: whether it is a product with the number 0.
    """

    owner: str = FREE
    outside: Any = None
    still: bool = False


ZERO = Known(FREE, 0.0, still=True)
_UNKNOWN = Known()
_LIKE_ADD = ("add", "sub", "add_any")
_OF_ZERO = ("neg", "abs", "sqrt", "sign", "square", "max", "min", "reduce_precision")
_COPIES = ("copy", "copy_p", "convert_element_type", "broadcast_in_dim", "pvary", "pcast")
_ELEMENTWISE = {
    *(*_LIKE_ADD, *_OF_ZERO, *_COPIES[:3], *_COPIES[4:], "mul", "select_n", "integer_pow", "div", "rem", "pow"),
    *("acos", "acosh", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp", "cos", "cosh", "eq"),
    *("erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "is_finite", "le", "log", "log1p", "lt"),
    *("logistic", "ne", "nextafter", "not", "or", "round", "rsqrt", "sin", "sinh", "stop_gradient", "tan", "tanh"),
    *("xor", "shift_left", "shift_right_arithmetic", "shift_right_logical"),
}


def follow(jaxpr: Any, given: Sequence[Known]) -> list[Known]:
    """From what is known of a trace's arguments to what is known of its results."""
    known = dict(zip(jaxpr.invars, given, strict=True))

    def find(atom: Any) -> Known:
        return _of_literal(atom.val) if hasattr(atom, "val") else known.get(atom, _UNKNOWN)

    for equation in jaxpr.eqns:
        results = _results(equation, [find(atom) for atom in equation.invars])
        known.update((var, _shared(var, result)) for var, result in zip(equation.outvars, results, strict=True))
    return [find(atom) for atom in jaxpr.outvars]


def joined(one: Known, other: Known) -> Known:
    """What is known of an array that is the one or the other."""
    outside = one.outside if one.outside == other.outside else None
    return Known(_owner([one, other]), outside, one.still and other.still)


def _of_literal(value: Any) -> Known:
    number = np.asarray(value)
    if number.ndim or not np.isfinite(number):
        return _UNKNOWN
    return Known(FREE, float(number), still=bool(number == 0))


def _shared(var: Any, result: Known) -> Known:
    """A single number is shared by all elements that it meets, whatever it is made of."""
    return result._replace(owner=FREE) if result.owner == MIXED and var.aval.size == 1 else result


def _owner(inputs: Sequence[Known]) -> str:
    owners = {known.owner for known in inputs} - {FREE}
    return owners.pop() if len(owners) == 1 else MIXED if owners else FREE


def _results(equation: Any, inputs: list[Known]) -> Sequence[Known]:
    kind, count = equation.primitive.name, len(equation.outvars)
    if (inner := called(equation)) is not None:
        return follow(inner, inputs)
    if kind == "cond":
        results, *others = ([*follow(branch.jaxpr, inputs[1:])] for branch in equation.params["branches"])
        for other in others:
            results = [joined(*pair) for pair in zip(results, other, strict=True)]
        return results
    owner = _owner(inputs)
    if kind in _ELEMENTWISE or (kind == "broadcast_in_dim" and (owner == FREE or _same_shape(equation))):
        outside = None if owner == MIXED else _outside(equation, kind, [known.outside for known in inputs])
        return [Known(owner, outside, _still(kind, inputs))] * count
    return [Known(FREE if owner == FREE else MIXED)] * count


def _same_shape(equation: Any) -> bool:
    return bool(equation.invars[0].aval.shape == equation.outvars[0].aval.shape)


def _still(kind: str, inputs: list[Known]) -> bool:
    if kind in ("mul", "div"):
        return inputs[0].still or (kind == "mul" and inputs[1].still)
    inputs = inputs[1:] if kind == "select_n" else inputs
    return kind in (*_LIKE_ADD, *_OF_ZERO, *_COPIES, "select_n") and all(known.still for known in inputs)


def _outside(equation: Any, kind: str, values: list[Any]) -> Any:
    """What the numbers outside the mask are, by those of the operands.

    These few operations make momentum and second moments. What was clipped by a norm is not known, since that may
    divide by NaN.
    """
    if kind == "select_n":
        return values[1] if all(value == values[1] for value in values[1:]) else None
    if kind in _COPIES:
        same = equation.invars[0].aval.dtype == equation.outvars[0].aval.dtype
        return values[0] if same or not isinstance(values[0], Fresh) else None
    if kind == "mul":
        return 0.0 if all(isinstance(value, float) for value in values) and 0 in values else None
    rest = [value for value in values if value != 0]
    if kind in _LIKE_ADD and len(rest) == 1 and (kind != "sub" or values[1] == 0):
        return rest[0]
    if kind == "integer_pow" and equation.params["y"] <= 0:
        return None
    return 0.0 if kind in (*_LIKE_ADD, *_OF_ZERO, "integer_pow") and not rest else None
