"""Parts of the loops of convolutions: numbers are copied piece by piece to where they are packed, and back.

A *piece* is a run of output positions that lie side by side in memory: mostly a line of the outputs. The parts are
compiled into the loops of `convolution_loops`. They read pieces number by number: numba counts the references to a row
of an array, which takes ten times as long as a copy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rigl_core.sparse.compiling import part
from rigl_core.sparse.convolution import Places
from rigl_core.sparse.index import Floats
from rigl_core.sparse.numba_vectors import add, copy

Pieces = npt.NDArray[np.int64]


@part
def pieces_of(positions: Places) -> Pieces:
    """The pieces of a panel: where each begins in memory and in the panel, and its length."""
    pieces = np.empty((positions.size, 3), np.int64)
    count = 0
    for i in range(positions.size):
        if i == 0 or positions[i] != positions[i - 1] + 1:
            pieces[count, 0], pieces[count, 1], pieces[count, 2] = positions[i], i, 0
            count += 1
        pieces[count - 1, 2] += 1
    return pieces[:count]


@part
def copy_piece(source: int, target: int, length: int) -> None:
    """Copy some numbers, and nothing beside them, which may be another thread's."""
    end = length & ~7
    for j in range(0, end, 8):
        copy(8, source + 4 * j, target + 4 * j)
    if length & 4:
        copy(4, source + 4 * end, target + 4 * end)
        end += 4
    if length & 2:
        copy(2, source + 4 * end, target + 4 * end)
        end += 2
    if length & 1:
        copy(1, source + 4 * end, target + 4 * end)


@part
def add_piece(source: int, target: int, length: int) -> None:
    """Add some numbers, as `copy_piece` copies them."""
    end = length & ~7
    for j in range(0, end, 8):
        add(8, source + 4 * j, target + 4 * j)
    if length & 4:
        add(4, source + 4 * end, target + 4 * end)
        end += 4
    if length & 2:
        add(2, source + 4 * end, target + 4 * end)
        end += 2
    if length & 1:
        add(1, source + 4 * end, target + 4 * end)


@part
def pack_pieces(array: Floats, starts: Places, size: int, pieces: Pieces, lanes: int, packed: Floats) -> None:
    """Copy lines of a panel, each of some lanes, to where they are packed; lanes from size on become 0."""
    for i in range(starts.size):
        source, target = array.ctypes.data + 4 * starts[i], packed.ctypes.data + 4 * lanes * i
        for piece in range(pieces.shape[0]):
            first, place, length = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
            copy_piece(source + 4 * first, target + 4 * place, length)
        for j in range(size, lanes):
            packed[lanes * i + j] = 0


@part
def put_pieces(packed: Floats, starts: Places, pieces: Pieces, lanes: int, array: Floats) -> None:
    """Copy packed lines back."""
    for i in range(starts.size):
        source, target = packed.ctypes.data + 4 * lanes * i, array.ctypes.data + 4 * starts[i]
        for piece in range(pieces.shape[0]):
            first, place, length = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
            copy_piece(source + 4 * place, target + 4 * first, length)


@part
def add_pieces(packed: Floats, starts: Places, pieces: Pieces, lanes: int, array: Floats) -> None:
    """Add packed lines to where they came from."""
    for i in range(starts.size):
        source, target = packed.ctypes.data + 4 * lanes * i, array.ctypes.data + 4 * starts[i]
        for piece in range(pieces.shape[0]):
            first, place, length = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
            add_piece(source + 4 * place, target + 4 * first, length)
