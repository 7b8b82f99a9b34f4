"""The places of connections in a matrix: as flat indices, and in tiles of columns (`rigl_core.sparse.index`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Flat = npt.NDArray[np.int32]
"""Flat indices of connections, in C order of the framework's own array."""
NARROWEST, WIDEST = 128, 1024
"""Columns of a tile. Wider tiles leave the cache; in narrower ones a row has too few connections."""
A_ROW = 10
"""The active connections that a row of a tile shall have, on average."""


def width_for(cols: int, density: float, kernel: int = 1) -> int:
    """The columns of a tile that suit a density: about `A_ROW` active connections a row, of whole channels."""
    width = NARROWEST
    while width < WIDEST and width * density < A_ROW:
        width *= 2
    return max(min(max(width // kernel, 1) * kernel, cols), 1)


def check_flat(flat: Flat, size: int) -> None:
    """Refuse flat indices that do not ascend, or lie outside a layer of this size."""
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise TypeError(f"flat indices are a {flat.dtype} array of {flat.ndim} axes: give a flat array of integers.")
    if flat.size and (int(flat[0]) < 0 or int(flat[-1]) >= size):
        raise ValueError(f"flat indices go from {flat[0]} to {flat[-1]}: the layer has {size} connections, from 0 on.")
    if flat.size > 1 and not (flat[1:] > flat[:-1]).all():
        raise ValueError("flat indices must ascend, without repetition: sort them, and use each once.")


def split(flat: Flat, rows: int, cols: int, kernel: int | None) -> tuple[Flat, Flat]:
    """The row and the column of connections; ``kernel`` has the positions of the kernel if inputs come first."""
    own = flat.astype(np.int32, copy=False)
    if kernel is None:
        row, col = np.divmod(own, np.int32(max(cols, 1)))
        return row, col
    line, row = np.divmod(own, np.int32(max(rows, 1)))
    if kernel > 1:
        position, channel = np.divmod(line, np.int32(max(cols // kernel, 1)))
        line = channel * np.int32(kernel) + position
    return row, line


def place(row: Flat, col: Flat, rows: int, width: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint16]]:
    """The segment and the column within the tile of connections."""
    tile, column = np.divmod(col, np.int32(width))
    tile *= np.int32(rows)
    tile += row
    return tile, column.astype(np.uint16)


def pointers_of(segment: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.int32]:
    """Where each segment begins in storage order, and the end: ``size`` numbers."""
    counts = np.bincount(segment, minlength=size - 1)
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
