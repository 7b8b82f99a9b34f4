"""In and out axes that a user gives, for layers whose axes the model does not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rigl_core.model.layers import Layer
from rigl_core.model.patterns import check_patterns, first_match

Axes = Mapping[str, tuple[Sequence[int], Sequence[int]]]
"""In and out axes by name pattern: ``{"*/query/kernel": ((0,), (1, 2))}``."""


def with_axes(layers: Sequence[Layer], axes: Axes | None, names: Sequence[str]) -> list[Layer]:
    """The layers, each with the axes of the first pattern that matches its name.

    Args:
        layers: the layers as the adapter describes them; those that no pattern matches stay as they are.
        axes: (in axes, out axes) by name pattern; None changes nothing.
        names: the names of all parameters. Every pattern has to match at least one of them.

    Raises:
        ValueError: if a pattern matches no parameter, or axes do not fit a layer's shape.
    """
    if not axes:
        return list(layers)
    check_patterns("axes", axes, names)
    given = [(layer, first_match(layer.name, axes)) for layer in layers]
    return [
        layer if pair is None else replace(layer, in_axes=tuple(pair[0]), out_axes=tuple(pair[1]))
        for layer, pair in given
    ]
