"""A slow implementation of the exact counts after the contract (rules B3, B7, B8, B10), in fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe
from rigl_core.testing import group_oracle


def erdos_renyi_scale(layer: Layer) -> Fraction:
    """The density of a layer, or of its slices (B12), at epsilon = 1; sizes of axes are the stored ones (B7)."""
    sizes = slice_sizes(layer)
    inputs, outputs = (math.prod(sizes[axis] for axis in axes) for axes in (layer.in_axes, layer.out_axes))
    return Fraction(inputs + outputs, inputs * outputs)


def slice_sizes(layer: Layer) -> dict[int, int]:
    """The sizes of the axes of one slice, by the axes of the whole layer (rule B12)."""
    axis, parts = layer.fused or (-1, 1)
    sizes = {i: size // parts if i == axis else size for i, size in enumerate(layer.shape)}
    return {i: size for i, size in sizes.items() if i not in layer.stacked}


def densities(scales: Sequence[Fraction], sizes: Sequence[int], budget: int) -> list[Fraction]:
    """Densities in proportion to scales: all layers at the maximum become dense, and the rest is solved again (B8)."""
    dense: set[int] = set()
    while True:
        rest = [i for i in range(len(scales)) if i not in dense]
        if not rest:
            return [Fraction(1)] * len(scales)
        left = budget - sum(sizes[i] for i in dense)
        epsilon = Fraction(left) / sum(scales[i] * sizes[i] for i in rest)
        if all(epsilon * scales[i] <= 1 for i in rest):
            return [Fraction(1) if i in dense else epsilon * scales[i] for i in range(len(scales))]
        highest = max(scales[i] for i in rest)
        dense |= {i for i in rest if scales[i] == highest}


def counts(scales: Sequence[Fraction], sizes: Sequence[int], budget: int) -> list[int]:
    """The active connections of each layer: shares by these scales, rounded by largest remainder (B3)."""
    shares = [density * size for density, size in zip(densities(scales, sizes, budget), sizes, strict=True)]
    floors = [math.floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (floors[i] - shares[i], i))
    extra = order[: budget - sum(floors)]
    return [floor + (i in extra) for i, floor in enumerate(floors)]


def nearest(recipe: Recipe, layer: Layer, active: int) -> int:
    """The count nearest to ``active`` that gives all groups the same number of units; a half goes to the even one."""
    groups = group_oracle.groups_of(recipe, layer)
    step = len(groups) * len(groups[0][0])
    return step * min(range(len(groups[0]) + 1), key=lambda units: (abs(units * step - active), units % 2))
