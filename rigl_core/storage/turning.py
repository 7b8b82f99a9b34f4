"""Masks of one layout in another, by the axes of their layers.

Between any two layouts stands one form: (outputs, inputs, positions of the kernel ...). The layers of a stack count
among these positions, before the kernel's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from rigl_core.model.layers import Layer

Mask = npt.NDArray[np.bool_]
Layout = Literal["torch", "jax", "keras"]
LAYOUTS: tuple[Layout, ...] = ("torch", "jax", "keras")


def has_axes(layer: Layer) -> bool:
    """Whether a layer's in and out axes are known."""
    return bool(layer.in_axes and layer.out_axes)


def matrix_shape(layer: Layer) -> tuple[int, ...]:
    """(outputs, inputs, positions of the kernel ...)."""
    return layer.n_out, layer.n_in, *(layer.shape[axis] for axis in _positions(layer))


def to_matrix(mask: Mask, layer: Layer) -> Mask:
    """A mask of a layer's shape as (outputs, inputs, positions of the kernel ...)."""
    shape = matrix_shape(layer)  # raises if axes are unknown
    return mask.transpose(_axes(layer)).reshape(shape)


def from_matrix(matrix: Mask, layer: Layer) -> Mask:
    """The mask of a layer's shape, from what `to_matrix` gives."""
    axes = _axes(layer)
    parts = matrix.reshape([layer.shape[axis] for axis in axes])
    return parts.transpose([axes.index(axis) for axis in range(len(axes))])


def turned(mask: Mask, before: Layer, after: Layer) -> Mask:
    """The mask of one layer for another one, which is the same layer in another layout.

    Raises:
        ValueError: if axes are unknown, or the layers do not have the same outputs, inputs, kernel and groups.
    """
    unknown = not (has_axes(before) or has_axes(after))
    if unknown and before.shape == after.shape:
        return mask
    if not (has_axes(before) and has_axes(after)):
        which = "the topology" if not has_axes(before) else "the model"
        raise ValueError(
            f"layer {after.name!r} has unknown in and out axes in {which}, so nothing tells how to turn its mask from "
            f"the shape {before.shape} to {after.shape}: describe it with its axes (axes=...)."
        )
    if matrix_shape(before) != matrix_shape(after):
        raise ValueError(
            f"layer {after.name!r} is (outputs, inputs, kernel ...) = {matrix_shape(before)} in the topology, and "
            f"{matrix_shape(after)} in the model."
        )
    groups = [(own.groups, own.grouped_axes) for own in (before, after)]
    if groups[0] != groups[1] and min(before.groups, after.groups) > 1:
        raise ValueError(
            f"layer {after.name!r} has {before.groups} groups, stored by {before.grouped_axes!r}, in the topology, and "
            f"{after.groups} by {after.grouped_axes!r} in the model."
        )
    return from_matrix(to_matrix(mask, before), after)


def in_layout(layer: Layer, layout: Layout) -> Layer:
    """The layer as a framework stores it.

    Raises:
        ValueError: for an unknown layout, or unknown axes.
    """
    check_layout(layout)
    matrix_shape(layer)
    kernel, inputs, outputs = layer.kernel_axes, layer.in_axes, layer.out_axes
    own = (*outputs, *inputs, *kernel) if layout == "torch" else (*kernel, *inputs, *outputs)
    order = (*layer.stacked, *own)
    return replace(
        layer,
        shape=tuple(layer.shape[axis] for axis in order),
        in_axes=tuple(order.index(axis) for axis in inputs),
        out_axes=tuple(order.index(axis) for axis in outputs),
        stacked=tuple(order.index(axis) for axis in layer.stacked),
        fused=(order.index(layer.fused[0]), layer.fused[1]) if layer.fused else (),
    )


def stored_in(name: str, shape: tuple[int, ...], layout: Layout) -> Layer:
    """The layer that an array of a framework is; one with a single axis has no known ones."""
    check_layout(layout)
    rank = len(shape)
    if rank < 2:
        return Layer(name, shape)
    first = layout == "torch"
    return Layer(name, shape, in_axes=(1 if first else rank - 2,), out_axes=(0 if first else rank - 1,))


def check_layout(layout: str) -> None:
    """Refuse a layout that is not in `LAYOUTS`."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}: use {' or '.join(map(repr, LAYOUTS))}.")


def _axes(layer: Layer) -> tuple[int, ...]:
    return layer.out_axes + layer.in_axes + _positions(layer)


def _positions(layer: Layer) -> tuple[int, ...]:
    return layer.stacked + layer.kernel_axes
