"""How the connections of a layer with slices are chosen: as the structure says, in each slice on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import numpy_namespace
from rigl_core.model.layers import Layer
from rigl_core.parts.structures import Arrangement, Structure


def arrangement_of(structure: Structure, layer: Layer) -> Arrangement | None:
    """The groups and units of a layer: those of the structure in each slice; None if the layer is one free choice.

    Raises:
        ValueError: if the structure does not fit a slice.
    """
    if not layer.stacked and not layer.fused:
        return structure.arrangement(layer)
    own = structure.arrangement(layer.one_slice)
    if own is None:
        return None if layer.slices == 1 else slices_as_groups(layer)
    return in_each_slice(layer, own)


def slices_as_groups(layer: Layer) -> Arrangement:
    """Each slice as one group, whose units are its weights in the order of their flat indices."""
    shape = layer.one_slice.shape
    return in_each_slice(layer, Arrangement(shape, tuple(range(len(shape))), 1, math.prod(shape)))


def parts_of_slices(layer: Layer) -> list[slice | npt.NDArray[np.intp]]:
    """The flat indices of each slice: a range, where its weights lie side by side, or an array."""
    own = slices_as_groups(layer)
    if own.order == tuple(range(len(own.order))):
        return [slice(i * own.units, (i + 1) * own.units) for i in range(own.groups)]
    return [*own.mask_by_unit(np.arange(layer.size), xp=numpy_namespace)]


def in_each_slice(layer: Layer, own: Arrangement) -> Arrangement:
    """The arrangement of the whole layer, whose groups are those of the first slice, then of the next one."""
    pieces = iter(_pieces(own.split, layer.one_slice.shape))
    split: list[int] = []
    slices, places = [], []
    for axis, size in enumerate(layer.shape):
        if axis in layer.stacked:
            slices.append(len(split))
            split.append(size)
            continue
        if layer.fused and axis == layer.fused[0]:
            slices.append(len(split))
            split.append(layer.fused[1])
        for piece in next(pieces):
            places.append(len(split))
            split.append(piece)
    order = (*slices, *(places[i] for i in own.order))
    return Arrangement(tuple(split), order, layer.slices * own.groups, own.units, own.unit)


def _pieces(split: Sequence[int], shape: Sequence[int]) -> list[list[int]]:
    """The sizes into which each axis is split. A size of 1 may go with the next axis, which changes no order."""
    rest, pieces = list(split), []
    for size in shape:
        own: list[int] = []
        while rest and math.prod(own) != size:
            own.append(rest.pop(0))
        pieces.append(own)
    pieces[-1] += rest
    return pieces
