"""The connections of each output, or of each input, of a layer: to compare scores within them, and to keep a floor."""

from __future__ import annotations

import math
from typing import Literal

from rigl_core.arrays import topology
from rigl_core.arrays.namespace import Array, Namespace, count
from rigl_core.model.layers import Layer
from rigl_core.parts.slices import in_each_slice
from rigl_core.parts.structures import Arrangement, of_each

Side = Literal["output", "input"]


def connections_of(side: Side, layer: Layer, parameter: str) -> Arrangement:
    """Groups of a layer's connections: those of each output, or of each input, in each slice.

    Args:
        side: which units.
        layer: the layer.
        parameter: what asks for them, for the message of an error.

    Raises:
        ValueError: if the layer's axes are unknown, or if the groups of a convolution share the array's axis of outputs
            (inputs).
    """
    own = layer.one_slice
    axes = own.out_axes if side == "output" else own.in_axes
    if not axes or (own.groups > 1 and own.grouped_axes == ("out" if side == "output" else "in")):
        why = f"are shared by its {own.groups} groups" if axes else "are unknown: give its axes"
        raise ValueError(
            f"{parameter} looks at each {side} of a layer, and those of layer {layer.name!r} {why}. Pin the layer with "
            f"dense=[...], exclude it, or leave {parameter} out."
        )
    arrangement = of_each(own, axes, math.prod(own.shape[axis] for axis in axes))
    return arrangement if layer.slices == 1 else in_each_slice(layer, arrangement)


def relative(scores: Array, groups: Arrangement, *, xp: Namespace) -> Array:
    """Scores divided by the largest score of their group; 0 where all of these are 0.

    They are multiplied by the reciprocal, since some compilers do that in place of a division, which rounds otherwise.

    Args:
        scores: flat, at least 0, without NaN; of 16 bits, they become float32.
        groups: the groups.
        xp: the arrays' namespace.
    """
    rows = groups.scores_by_unit(xp.widen(scores), xp=xp)
    largest = xp.kth_largest(rows, 1)
    ones = xp.full_like(largest, 1)
    one = xp.where(largest >= 0, ones, largest)  # TensorFlow's graphs divide a constant 1 only approximately
    reciprocal = topology.magnitude(one / xp.where(largest > 0, largest, ones), xp=xp)
    return groups.mask_by_weight(topology.magnitude(rows * reciprocal, xp=xp), xp=xp)


def best_with_floor(
    scores: Array, k: Array | int, floor: int, groups: Arrangement, *, xp: Namespace, among: Array
) -> Array:
    """The mask of the ``k`` best connections, of which the ``floor`` best ones of each group come first.

    Args:
        scores: flat, without NaN, at least 0.
        k: the number to choose.
        floor: the number for each group; a group with fewer connections among ``among`` has all of them.
        groups: the groups.
        xp: the arrays' namespace.
        among: flat bool array, the connections to choose from.
    """
    eligible = xp.where(among, scores, xp.full_like(scores, -1))
    return _first_these(_floor_of(eligible, floor, groups, xp) & among, scores, k, among, xp)


def grown_with_floor(
    scores: Array, k: Array | int, floor: int, groups: Arrangement, *, xp: Namespace, kept: Array
) -> Array:
    """The mask of ``k`` connections to grow beside those kept: first the best ones that a group lacks to its floor."""
    first = groups.mask_by_unit(kept, xp=xp)
    rows = topology.top_k_with(first, groups.scores_by_unit(scores, xp=xp), min(floor, groups.units), xp=xp)
    lacking = groups.mask_by_weight(rows, xp=xp) & ~kept
    return _first_these(lacking, scores, k, ~kept, xp)


def _floor_of(scores: Array, floor: int, groups: Arrangement, xp: Namespace) -> Array:
    """The best connections of each group."""
    rows = groups.scores_by_unit(scores, xp=xp)
    return groups.mask_by_weight(topology.top_k_mask(rows, min(floor, groups.units), xp=xp), xp=xp)


def _first_these(these: Array, scores: Array, k: Array | int, among: Array, xp: Namespace) -> Array:
    """The ``k`` best connections, of which ``these`` come first."""
    there = count(these, xp=xp)
    first = topology.best_of(scores, xp.where(there < k, there, there * 0 + k), among=these, xp=xp)
    rest = topology.best_of(scores, k - count(first, xp=xp), among=among & ~first, xp=xp)
    return first | rest
