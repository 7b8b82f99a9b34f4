"""What a user says of axes, for layers whose axes and slices the model does not tell."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rigl_core.model.layers import Layer
from rigl_core.model.patterns import check_patterns, first_match
from rigl_core.model.slices import Fused, Stacked, fused_of, stack_axes_of

Axes = Mapping[str, tuple[Sequence[int], Sequence[int]]]
"""In and out axes by name pattern: ``{"*/query/kernel": ((0,), (1, 2))}``."""


def with_axes(
    layers: Sequence[Layer],
    axes: Axes | None,
    names: Sequence[str],
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> list[Layer]:
    """The layers, each with the axes and the slices of the first pattern that matches its name.

    Args:
        layers: the layers as the adapter describes them; those that no pattern matches stay as they are.
        axes: (in axes, out axes) by name pattern, counted in the whole array; None changes nothing.
        names: the names of all parameters. Every pattern has to match at least one of them.
        stacked: the axis or axes along which layers are stacked, by name pattern.
        fused: the number of parts that are fused along the out axis, or (axis, parts), by name pattern.

    Raises:
        TypeError, ValueError: if a pattern matches no parameter, or what is given does not fit a layer's shape.
    """
    for parameter, given in {"axes": axes, "stacked": stacked, "fused": fused}.items():
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"{parameter} is {given!r}: give a mapping from name pattern to what is meant.")
        check_patterns(parameter, given or {}, names)
        for pattern, value in (given or {}).items():
            if value is None:
                raise TypeError(f"{parameter}[{pattern!r}] is None: say what is meant, or leave the pattern out.")
    return [_with_fused(_with_axes(layer, axes or {}, stacked), fused) for layer in layers]


def _with_axes(layer: Layer, axes: Axes, stacked: Stacked | None) -> Layer:
    own: dict[str, Any] = {}
    if (pair := first_match(layer.name, axes)) is not None:
        own |= _pair(layer.name, pair)
    if stack_axes := stack_axes_of(layer.name, stacked):
        own["stacked"] = stack_axes
    return replace(layer, **own) if own else layer


def _pair(name: str, pair: Any) -> dict[str, tuple[int, ...]]:
    try:
        in_axes, out_axes = (tuple(map(operator.index, axes)) for axes in pair)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"axes of layer {name!r} are {pair!r}: give two sequences of whole numbers, (in axes, out axes), such as "
            "((0,), (1,))."
        ) from error
    return {"in_axes": in_axes, "out_axes": out_axes}


def _with_fused(layer: Layer, fused: Fused | None) -> Layer:
    own = fused_of(layer.name, fused, layer.out_axes)
    return replace(layer, fused=own) if own else layer
