"""Slices of a layer: the layers of a stack, and the parts that are fused along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rigl_core.model.numbers import check_integer
from rigl_core.model.patterns import first_match

Stacked = Mapping[str, int | Sequence[int]]
"""The axis, or the axes, along which layers are stacked, by name pattern: ``{"layers/*": 0}``."""
Fused = Mapping[str, int | Sequence[int]]
"""The number of equal parts of the out axis, or (axis, parts), by name pattern: ``{"*.in_proj_weight": 3}``."""


def stack_axes_of(name: str, stacked: Stacked | None) -> tuple[int, ...]:
    """The axes along which a parameter is a stack; () if no pattern matches it.

    Raises:
        TypeError, ValueError: for what is no axis, or no axes.
    """
    given = first_match(name, stacked or {})
    return () if given is None else _integers(f"stacked of {name!r}", given, "an axis, or several axes")


def fused_of(name: str, fused: Fused | None, out_axes: Sequence[int]) -> tuple[int, ...]:
    """(axis, parts) of a layer; () if no pattern matches it. A single number cuts the first out axis.

    Raises:
        TypeError, ValueError: for what is neither a number of parts nor (axis, parts), and for unknown out axes.
    """
    given = first_match(name, fused or {})
    if given is None:
        return ()
    numbers = _integers(f"fused of {name!r}", given, "a number of parts, or (axis, parts)")
    if len(numbers) == 1 and not isinstance(given, Sequence):
        if not out_axes:
            raise ValueError(
                f"fused cuts layer {name!r} along its out axis, which is unknown: give (axis, parts), or the layer's "
                "axes."
            )
        numbers = (out_axes[0], *numbers)
    if len(numbers) != 2:
        raise ValueError(f"fused of {name!r} is {given!r}: give a number of parts, or (axis, parts).")
    return numbers


def without_stack(shape: Sequence[int], stack_axes: Sequence[int]) -> tuple[int, ...]:
    """The shape of one layer of a stack."""
    return tuple(size for axis, size in enumerate(shape) if axis not in stack_axes)


def beside_stack(axes: Sequence[int], stack_axes: Sequence[int]) -> tuple[int, ...]:
    """Where axes of one layer are in the array of the stack."""
    moved = tuple(axes)
    for own in sorted(stack_axes):
        moved = tuple(axis + (axis >= own) for axis in moved)
    return moved


def check_slices(
    name: str, shape: Sequence[int], used: Sequence[int], stacked: Sequence[int], fused: Sequence[int]
) -> None:
    """Refuse slices that do not fit a layer.

    Args:
        name: the layer's name.
        shape: its shape.
        used: its in and out axes.
        stacked: the axes along which it is a stack.
        fused: (axis, parts), or empty.

    Raises:
        ValueError: the message names the layer and what does not fit.
    """
    last = len(shape) - 1
    if len(set(stacked)) < len(stacked) or any(not 0 <= axis <= last for axis in stacked):
        raise ValueError(
            f"stacked of layer {name!r} is {tuple(stacked)}: they must be different axes from 0 to {last}."
        )
    if stacked and len(stacked) == len(shape):
        raise ValueError(f"stacked of layer {name!r} names all of its {len(shape)} axes: a slice has no connections.")
    if both := sorted({*stacked} & {*used}):
        raise ValueError(
            f"stacked of layer {name!r} names axis {both[0]}, which is one of its in or out axes: correct it, or "
            "give the layer's axes."
        )
    if not fused:
        return
    if len(fused) != 2 or not 0 <= fused[0] <= last or fused[0] in stacked:
        raise ValueError(
            f"fused of layer {name!r} is {tuple(fused)}: it must be (axis, parts), with an axis from 0 to {last} along "
            "which nothing is stacked."
        )
    axis, parts = fused
    if parts < 1 or shape[axis] % parts:
        raise ValueError(
            f"fused of layer {name!r} cuts axis {axis} of size {shape[axis]} into {parts} equal parts: give a number "
            "that divides the size."
        )


def _integers(what: str, given: object, expected: str) -> tuple[int, ...]:
    if isinstance(given, str | bool | Mapping) or not (isinstance(given, Sequence) or hasattr(given, "__index__")):
        raise TypeError(f"{what} is {given!r}: give {expected}.")
    return tuple(check_integer(what, n, 0) for n in (given if isinstance(given, Sequence) else (given,)))
