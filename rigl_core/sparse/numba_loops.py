"""The loops of the kernels, compiled once for all shapes. They hold no lock of Python: threads run them at once.

A *panel* is an array (features, lanes) of some samples: a view of feature-major activations, whose rows are contiguous.
Lanes are 16, 32 or 64. A panel's features of one tile are *packed*: copied to memory without gaps, which stays in a
cache.
"""

from __future__ import annotations

import numpy as np
from numba import types

from rigl_core.sparse.compiling import compiled, read, written
from rigl_core.sparse.index import Floats
from rigl_core.sparse.numba_panels import (
    Columns,
    Pointers,
    add_edge,
    add_tile,
    add_tile_gradients,
    clear_lanes,
    clear_packed,
    pack,
    row_of,
    transpose_rows,
    unpack,
)
from rigl_core.sparse.numba_vectors import COLUMNS, ROWS, add_block

INT = types.int64
INDEX = (read(types.int32), read(types.uint16), INT)
VALUES, PANEL = read(types.float32), read(types.float32, axes=2)


@compiled(*INDEX, VALUES, PANEL, written(axes=2), INT, INT, written(axes=2))
def forward_rows(
    pointers: Pointers,
    columns: Columns,
    width: int,
    values: Floats,
    x: Floats,
    y: Floats,
    first: int,
    last: int,
    packed: Floats,
) -> None:
    """The outputs of the rows from first to before last, for a panel.

    Args:
        pointers, columns, width: the attributes of an index.
        values: the active weights, in storage order.
        x: inputs (cols, lanes).
        y: outputs (rows, lanes), of any values.
        first: the first row.
        last: the row after the last one.
        packed: memory (width, lanes).
    """
    cols, lanes = x.shape
    rows = y.shape[0]
    for row in range(first, last):
        clear_lanes(lanes, row_of(y, row))
    for tile in range(-(-cols // width)):
        pack(x, tile * width, min(width, cols - tile * width), packed)
        add_tile(pointers[tile * rows + first :], columns, values, packed, y[first:last])


@compiled(*INDEX, VALUES, VALUES, written(), INT, INT, in_any_order=True)
def forward_sample(
    pointers: Pointers, columns: Columns, width: int, values: Floats, x: Floats, y: Floats, first: int, last: int
) -> None:
    """The outputs of the rows from first to before last, for one sample, without a panel.

    Args:
        pointers, columns, width: the attributes of an index.
        values: the active weights, in storage order.
        x: inputs (cols,).
        y: outputs (rows,), of any values.
        first: the first row.
        last: the row after the last one.
    """
    for row in range(first, last):
        y[row] = 0
    for tile in range(-(-x.size // width)):
        inputs = x[tile * width :]
        for row in range(first, last):
            begin, end = np.uintp(pointers[tile * y.size + row]), np.uintp(pointers[tile * y.size + row + 1])
            total = np.float32(0)
            for q in range(end - begin):  # LLVM makes vectors of it, since unsigned numbers never count from the end
                total += values[begin + q] * inputs[np.uintp(columns[begin + q])]
            y[row] += total


@compiled(*INDEX, VALUES, INT, PANEL, PANEL, written(axes=2), written(), written(axes=3))
def backward_tile(
    pointers: Pointers,
    columns: Columns,
    width: int,
    values: Floats,
    tile: int,
    x: Floats,
    dy: Floats,
    dx: Floats,
    gradient: Floats,
    packed: Floats,
) -> None:
    """The gradients of one tile, for a panel.

    Args:
        pointers, columns, width: the attributes of an index.
        values: the active weights, in storage order.
        tile: its number.
        x: inputs (cols, lanes).
        dy: the gradient of the outputs (rows, lanes).
        dx: the gradient of the inputs (cols, lanes), of any values; the features of the tile are written. It has no
            features if it is not wanted.
        gradient: of the active weights, in storage order; the panel's part is added.
        packed: memory (2, width, lanes).
    """
    cols, lanes = x.shape
    rows, start = dy.shape[0], tile * width
    features, needs_inputs = min(width, cols - start), dx.shape[0] > 0
    pack(x, start, features, packed[0])
    if needs_inputs:
        clear_packed(lanes, features, packed[1])
    add_tile_gradients(pointers[tile * rows :], columns, values, packed[0], dy, needs_inputs, packed[1], gradient)
    if needs_inputs:
        unpack(packed[1], start, features, dx)


@compiled(read(types.float32, axes=3), PANEL, written(axes=2), INT, INT, written(axes=2))
def product_columns(left: Floats, right: Floats, total: Floats, first: int, last: int, panel: Floats) -> None:
    """Add products, in batch order, to the columns from first to before last.

    Args:
        left: blocks of 6 rows (blocks, batch, 6); rows that total lacks are 0.
        right: (others, batch).
        total: (rows, others).
        first: the first column; it is a multiple of 16.
        last: the column after the last one; it is a multiple of 16, or others.
        panel: memory (batch + 6, 16).
    """
    rows, others = total.shape
    batch = right.shape[1]
    for column in range(first, last, COLUMNS):
        transpose_rows(right, column, panel[:batch], 0)
        for row in range(0, rows, ROWS):
            block = left[row // ROWS].ctypes.data
            if row + ROWS <= rows and column + COLUMNS <= others:
                add_block(row_of(total, row) + 4 * column, total.strides[0], block, panel.ctypes.data, batch)
            else:
                add_edge(total, block, panel[:batch], row, column, panel[batch:])


@compiled(PANEL, written(axes=2), INT, INT)
def transpose_range(source: Floats, target: Floats, first: int, last: int) -> None:
    """Write rows of source (rows, columns) into the columns of target (columns, rows).

    Args:
        source: what to transpose.
        target: the result.
        first: the first row; it is a multiple of 16.
        last: the row after the last one; it is a multiple of 16, or rows.
    """
    for row in range(first, last, COLUMNS):
        transpose_rows(source, row, target, row)
