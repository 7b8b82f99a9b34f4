"""Parts of the loops: panels that are packed and unpacked, and the vectors that fit their lanes.

They are compiled into the loops of `numba_loops`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rigl_core.sparse.compiling import part
from rigl_core.sparse.index import Floats
from rigl_core.sparse.numba_vectors import ROWS, add_block, add_gradients, add_rows, clear, copy, transpose

Pointers = npt.NDArray[np.int32]
Columns = npt.NDArray[np.uint16]


@part
def row_of(panel: Floats, row: int) -> int:
    """The address of a row."""
    return int(panel.ctypes.data + row * panel.strides[0])


@part
def copy_lanes(lanes: int, source: int, target: int) -> None:
    """Copy a row of a panel."""
    if lanes == 64:
        copy(64, source, target)
    elif lanes == 32:
        copy(32, source, target)
    else:
        copy(16, source, target)


@part
def clear_lanes(lanes: int, target: int) -> None:
    """Set a row of a panel to 0."""
    if lanes == 64:
        clear(64, target)
    elif lanes == 32:
        clear(32, target)
    else:
        clear(16, target)


@part
def pack(panel: Floats, first: int, features: int, packed: Floats) -> None:
    """Copy features of a panel to where they are packed."""
    lanes = panel.shape[1]
    for i in range(features):
        copy_lanes(lanes, row_of(panel, first + i), packed.ctypes.data + 4 * lanes * i)


@part
def clear_packed(lanes: int, features: int, packed: Floats) -> None:
    """Set packed features to 0."""
    for i in range(features):
        clear_lanes(lanes, packed.ctypes.data + 4 * lanes * i)


@part
def unpack(packed: Floats, first: int, features: int, panel: Floats) -> None:
    """Copy packed features back."""
    lanes = panel.shape[1]
    for i in range(features):
        copy_lanes(lanes, packed.ctypes.data + 4 * lanes * i, row_of(panel, first + i))


@part
def add_tile(pointers: Pointers, columns: Columns, values: Floats, packed: Floats, y: Floats) -> None:
    """`add_rows` for the lanes of a panel; pointers are those of its rows."""
    (rows, lanes), stride = y.shape, y.strides[0]
    starts, places, weights = pointers.ctypes.data, columns.ctypes.data, values.ctypes.data
    x, outputs = packed.ctypes.data, y.ctypes.data
    if lanes == 64:
        add_rows(64, rows, starts, places, weights, x, outputs, stride)
    elif lanes == 32:
        add_rows(32, rows, starts, places, weights, x, outputs, stride)
    else:
        add_rows(16, rows, starts, places, weights, x, outputs, stride)


@part
def add_tile_gradients(
    pointers: Pointers,
    columns: Columns,
    values: Floats,
    packed: Floats,
    outputs: Floats,
    needs_inputs: bool,
    inputs: Floats,
    gradient: Floats,
) -> None:
    """`add_gradients` for the lanes of a panel; pointers are those of its rows, and inputs are packed."""
    (rows, lanes), stride = outputs.shape, outputs.strides[0]
    starts, places, weights = pointers.ctypes.data, columns.ctypes.data, values.ctypes.data
    x, dy, dx, sums = packed.ctypes.data, outputs.ctypes.data, inputs.ctypes.data, gradient.ctypes.data
    if lanes == 64:
        if needs_inputs:
            add_gradients(64, 1, rows, starts, places, weights, x, dy, stride, dx, sums)
        else:
            add_gradients(64, 0, rows, starts, places, weights, x, dy, stride, dx, sums)
    elif lanes == 32:
        if needs_inputs:
            add_gradients(32, 1, rows, starts, places, weights, x, dy, stride, dx, sums)
        else:
            add_gradients(32, 0, rows, starts, places, weights, x, dy, stride, dx, sums)
    elif needs_inputs:
        add_gradients(16, 1, rows, starts, places, weights, x, dy, stride, dx, sums)
    else:
        add_gradients(16, 0, rows, starts, places, weights, x, dy, stride, dx, sums)


@part
def transpose_rows(source: Floats, first: int, target: Floats, column: int) -> None:
    """Write up to 16 rows of source, from the first one on, into columns of target, from the given one on."""
    rows, columns = min(16, source.shape[0] - first), source.shape[1]
    whole = columns // 16 * 16 if rows == 16 else 0
    for j in range(0, whole, 16):
        transpose(row_of(source, first) + 4 * j, source.strides[0], row_of(target, j) + 4 * column, target.strides[0])
    for j in range(whole, columns):
        for i in range(rows):
            target[j, column + i] = source[first + i, j]


@part
def add_edge(total: Floats, block: int, panel: Floats, row: int, column: int, copied: Floats) -> None:
    """`add_block` where total ends within the block: it works on a copy (6, 16)."""
    rows, columns = min(ROWS, total.shape[0] - row), min(16, total.shape[1] - column)
    for i in range(rows):
        for j in range(columns):
            copied[i, j] = total[row + i, column + j]
    add_block(copied.ctypes.data, 64, block, panel.ctypes.data, panel.shape[0])
    for i in range(rows):
        for j in range(columns):
            total[row + i, column + j] = copied[i, j]
