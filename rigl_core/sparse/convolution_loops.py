"""The loops of the kernels for convolutions; see `numba_loops`. A panel has some output positions of all channels."""

from __future__ import annotations

from numba import types

from rigl_core.sparse.compiling import compiled, read, written
from rigl_core.sparse.convolution import Places
from rigl_core.sparse.index import Floats
from rigl_core.sparse.numba_loops import INDEX, INT, PANEL, VALUES
from rigl_core.sparse.numba_panels import Columns, Pointers, add_tile, add_tile_gradients, clear_packed
from rigl_core.sparse.numba_pieces import add_pieces, pack_pieces, pieces_of, put_pieces

PLACES = read(types.int64)


@compiled(*INDEX, VALUES, VALUES, *[PLACES] * 4, written(), INT, INT, written(), written(axes=2))
def forward_rows(
    pointers: Pointers,
    columns: Columns,
    width: int,
    values: Floats,
    planes: Floats,
    starts: Places,
    positions: Places,
    out_starts: Places,
    out_positions: Places,
    y: Floats,
    first: int,
    last: int,
    packed: Floats,
    sums: Floats,
) -> None:
    """The outputs of the rows from first to before last, which are of one group, for a panel.

    Args:
        pointers, columns, width: the attributes of an index.
        values: the active weights, in storage order.
        planes: the inputs, flat.
        starts: of the columns of the group.
        positions: those of the panel, at most as many as its lanes.
        out_starts: of all rows.
        out_positions: those of the panel.
        y: outputs, flat, of any values; those of the panel and the rows are written.
        first: the first row.
        last: the row after the last one.
        packed: memory for width * lanes numbers.
        sums: memory (last - first, lanes), contiguous.
    """
    lanes, pieces = sums.shape[1], pieces_of(positions)
    clear_packed(lanes, last - first, sums)
    for tile in range(-(-starts.size // width)):
        own = starts[tile * width : (tile + 1) * width]
        pack_pieces(planes, own, positions.size, pieces, lanes, packed)
        add_tile(pointers[tile * out_starts.size + first :], columns, values, packed, sums)
    put_pieces(sums, out_starts[first:last], pieces_of(out_positions), lanes, y)


@compiled(*INDEX, VALUES, INT, VALUES, PLACES, PLACES, PANEL, INT, INT, written(), written(), written(axes=2))
def backward_tile(
    pointers: Pointers,
    columns: Columns,
    width: int,
    values: Floats,
    tile: int,
    planes: Floats,
    starts: Places,
    positions: Places,
    dy: Floats,
    first: int,
    last: int,
    dplanes: Floats,
    gradient: Floats,
    packed: Floats,
) -> None:
    """The gradients of one tile and group, for a panel.

    Args:
        pointers, columns, width: the attributes of an index.
        values: the active weights, in storage order.
        tile: its number.
        planes: the inputs, flat.
        starts: of the columns of the group.
        positions: those of the panel, at most as many as its lanes.
        dy: the gradient of the panel's outputs (rows, lanes), as `pack_panel` gives it.
        first: the first row of the group.
        last: the row after its last one.
        dplanes: the gradient of the inputs, flat; the panel's part is added. It is empty if it is not wanted.
        gradient: of the active weights, in storage order; the panel's part is added.
        packed: two times memory for width * lanes numbers.
    """
    (rows, lanes), needs_inputs = dy.shape, dplanes.size > 0
    pieces, own = pieces_of(positions), starts[tile * width : (tile + 1) * width]
    x, dx = packed[0], packed[1]
    pack_pieces(planes, own, positions.size, pieces, lanes, x)
    if needs_inputs:
        clear_packed(lanes, own.size, dx)
    segments = pointers[tile * rows + first :]
    add_tile_gradients(segments, columns, values, x, dy[first:last], needs_inputs, dx, gradient)
    if needs_inputs:
        add_pieces(dx, own, pieces, lanes, dplanes)


@compiled(VALUES, PLACES, PLACES, INT, written())
def pack_panel(array: Floats, starts: Places, positions: Places, lanes: int, packed: Floats) -> None:
    """Copy a panel to where it is packed.

    Args:
        array: what is copied, flat.
        starts: of its rows.
        positions: those of the panel.
        lanes: of the panel; those without a position become 0.
        packed: memory for rows * lanes numbers.
    """
    pack_pieces(array, starts, positions.size, pieces_of(positions), lanes, packed)
