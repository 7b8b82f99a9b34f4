"""Parts of the loops of convolutions: what columns see, copied piece by piece to where it is packed, and back.

A *piece* is a run of output positions that lie side by side in a plane: mostly a line of the outputs. They are compiled
into the loops of `convolution_loops`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rigl_core.sparse.compiling import part
from rigl_core.sparse.convolution import SLACK, Places
from rigl_core.sparse.index import Floats
from rigl_core.sparse.numba_vectors import add_some, copy

Pieces = npt.NDArray[np.int64]


@part
def pieces_of(positions: Places) -> Pieces:
    """The pieces of a panel: the position of each in a plane, its place in the panel, and its length."""
    pieces = np.empty((positions.size, 3), np.int64)
    count = 0
    for i in range(positions.size):
        if i == 0 or positions[i] != positions[i - 1] + 1:
            pieces[count, 0], pieces[count, 1], pieces[count, 2] = positions[i], i, 0
            count += 1
        pieces[count - 1, 2] += 1
    return pieces[:count]


@part
def pack_pieces(planes: Floats, starts: Places, size: int, pieces: Pieces, lanes: int, packed: Floats) -> None:
    """Copy what columns see to where they are packed; lanes from size on become 0.

    A copy writes beyond a piece, which what comes next makes good.
    """
    for i in range(starts.size):
        source, target = planes.ctypes.data + 4 * starts[i], packed.ctypes.data + 4 * lanes * i
        for piece in range(pieces.shape[0]):
            first, place, length = pieces[piece]
            for j in range(0, length, SLACK):
                copy(SLACK, source + 4 * (first + j), target + 4 * (place + j))
        for j in range(size, lanes):
            packed[lanes * i + j] = 0


@part
def add_pieces(packed: Floats, starts: Places, pieces: Pieces, lanes: int, planes: Floats) -> None:
    """Add packed numbers to what the columns see."""
    for i in range(starts.size):
        source, target = packed.ctypes.data + 4 * lanes * i, planes.ctypes.data + 4 * starts[i]
        for piece in range(pieces.shape[0]):
            first, place, length = pieces[piece]
            for j in range(0, length, SLACK):
                add_some(SLACK, source + 4 * (place + j), target + 4 * (first + j), length - j)
