"""Where the active connections of a layer are, in tiles of columns.

The kernels read a layer as a matrix: a row for each output, a column for each input. In a convolution there is a column
for each input channel and position of the kernel, channel by channel. Columns are cut into tiles of equal width, so
that the inputs of one tile stay in a processor's cache. Values are held in *storage order*: tile by tile, in a tile row
by row, in a row column by column. A connection takes two bytes, its column within the tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.sparse.places import Flat, check_flat, place, pointers_of, split, width_for

Floats = npt.NDArray[np.float32]
Order = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Index:
    """The active connections of a matrix.

    Attributes:
        rows: outputs.
        cols: inputs, times the positions of the kernel.
        inputs_first: whether the framework's array is (kernel, inputs, outputs), as in JAX, and not (outputs, inputs,
            kernel).
        width: columns of a tile, a multiple of `kernel`; the last tile may be narrower.
        pointers: int32 (tiles * rows + 1,): where each row of each tile begins in storage order, and the end.
        columns: uint16 (active,): the column of each connection within its tile, in storage order.
        kernel: the positions of a convolution's kernel.
    """

    rows: int
    cols: int
    inputs_first: bool
    width: int
    pointers: npt.NDArray[np.int32]
    columns: npt.NDArray[np.uint16]
    kernel: int = 1

    @classmethod
    def of(
        cls, flat: Flat, rows: int, cols: int, *, inputs_first: bool = False, width: int | None = None, kernel: int = 1
    ) -> Index:
        """The index of some connections.

        Args:
            flat: their flat indices, ascending.
            rows: outputs.
            cols: inputs, times the positions of the kernel.
            inputs_first: whether the framework's array is (kernel, inputs, outputs).
            width: columns of a tile; by default those that suit the density.
            kernel: the positions of a convolution's kernel.

        Raises:
            TypeError, ValueError: if the flat indices are no integers, do not ascend, or lie outside the matrix.
        """
        check_flat(flat, rows * cols)
        width = width_for(cols, flat.size / max(rows * cols, 1), kernel) if width is None else width
        row, col = split(flat, rows, cols, kernel if inputs_first else None)
        segment, column = place(row, col, rows, width)
        pointers = pointers_of(segment, -(-cols // width) * rows + 1)
        index = cls(rows, cols, inputs_first, width, pointers, column, kernel)
        return replace(index, columns=column[np.argsort(index._keys(segment, column))])

    def like(self, flat: Flat) -> Index:
        """The index of other connections of the same matrix, in tiles of the same width; see `of`."""
        first, width, kernel = self.inputs_first, self.width, self.kernel
        return Index.of(flat, self.rows, self.cols, inputs_first=first, width=width, kernel=kernel)

    @property
    def tiles(self) -> int:
        """The number of tiles."""
        return -(-self.cols // self.width)

    @property
    def size(self) -> int:
        """The number of active connections."""
        return self.columns.size

    @property
    def nbytes(self) -> int:
        """The bytes that the index takes."""
        return self.pointers.nbytes + self.columns.nbytes

    def flat(self) -> Flat:
        """The flat index of each active connection, in storage order."""
        tile, row = np.divmod(self.segments(), np.int32(max(self.rows, 1)))
        tile *= np.int32(self.width)
        tile += self.columns
        if self.inputs_first:
            if self.kernel > 1:
                channel, position = np.divmod(tile, np.int32(self.kernel))
                tile = position * np.int32(self.cols // self.kernel) + channel
            tile *= np.int32(self.rows)
            tile += row
            return tile
        row *= np.int32(self.cols)
        row += tile
        return row

    def segments(self) -> npt.NDArray[np.int32]:
        """The segment of each active connection, in storage order: its tile times the rows, plus its row."""
        return np.repeat(np.arange(self.pointers.size - 1, dtype=np.int32), np.diff(self.pointers))

    def _keys(self, segment: npt.NDArray[np.int32], column: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint32]:
        """Numbers in storage order. A layer has fewer than 2**31 connections, so they fit."""
        keys = segment.astype(np.uint32)
        keys *= np.uint32(self.width)
        keys += column
        return keys

    def order(self) -> npt.NDArray[np.intp]:
        """The positions in storage order of the active connections, by ascending flat index."""
        return np.argsort(self.flat())

    def mask(self) -> npt.NDArray[np.bool_]:
        """The flat mask: one bool for each connection that the layer could have."""
        mask = np.zeros(self.rows * self.cols, np.bool_)
        mask[self.flat()] = True
        return mask

    def dense(self, values: npt.NDArray[Any], outside: Any = 0) -> npt.NDArray[Any]:
        """Values in storage order as a flat array of the whole layer.

        Args:
            values: one for each active connection.
            outside: what inactive connections get: 0, or a flat array of the whole layer.
        """
        dense = np.empty(self.rows * self.cols, values.dtype)
        dense[...] = outside
        dense[self.flat()] = values
        return dense

    def values(self, dense: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The active values of a flat array of the whole layer, in storage order."""
        return dense.reshape(-1)[self.flat()]

    def changed(self, stays: npt.NDArray[np.bool_], new: Flat) -> tuple[Index, npt.NDArray[np.bool_], Order]:
        """The index after an update.

        Args:
            stays: by storage order, whether each active connection stays.
            new: the flat indices of the connections that join; in any order.

        Returns:
            The new index; in its storage order, whether each connection is new; and the positions in ``new`` of those
            that are, in storage order. Connections that stay keep their order.
        """
        own = split(new, self.rows, self.cols, self.kernel if self.inputs_first else None)
        segment, column = place(*own, self.rows, self.width)
        keys = self._keys(self.segments(), self.columns)
        dropped = (keys[~stays] // np.uint32(self.width)).astype(np.int32)
        keys, new_keys = keys[stays], self._keys(segment, column)
        order = np.argsort(new_keys)
        is_new = np.zeros(keys.size + new.size, np.bool_)
        is_new[np.searchsorted(keys, new_keys[order]) + np.arange(new.size)] = True
        del keys
        columns = np.empty(is_new.size, np.uint16)
        columns[is_new] = column[order]
        columns[~is_new] = self.columns[stays]
        pointers = self.pointers + pointers_of(segment, self.pointers.size) - pointers_of(dropped, self.pointers.size)
        return replace(self, pointers=pointers, columns=columns), is_new, order

    def check(self) -> None:
        """Refuse arrays that are no index, before a kernel follows them.

        Raises:
            ValueError: naming the array.
        """
        if min(self.rows, self.cols) < 0 or not 1 <= self.width <= 1 << 16:
            raise ValueError(f"a matrix of {self.rows} x {self.cols} has no tiles of width {self.width}.")
        for name, dtype in (("pointers", np.int32), ("columns", np.uint16)):
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous:
                raise ValueError(f"{name} must be a flat {np.dtype(dtype)} array, contiguous in memory.")
        expected = self.tiles * self.rows + 1
        if self.pointers.size != expected or self.pointers[0] != 0 or self.pointers[-1] != self.size:
            raise ValueError(f"pointers must be {expected} numbers, from 0 to {self.size}, the active connections.")
        if (self.pointers[1:] < self.pointers[:-1]).any():
            raise ValueError("pointers must not descend.")
        for tile, part in self._parts():
            columns = self.columns[part]
            if columns.size and int(columns.max()) >= min(self.width, self.cols - tile * self.width):
                raise ValueError(f"columns of tile {tile} lie outside the layer's {self.cols} inputs.")
        ascends = np.diff(self.columns.astype(np.int32)) > 0
        starts = self.pointers[1:-1]
        ascends[starts[(starts > 0) & (starts < self.size)] - 1] = True
        if not ascends.all():
            raise ValueError("columns of a row must ascend, without repetition.")

    def _parts(self) -> Iterator[tuple[int, slice]]:
        """The tiles, and where each is in storage order."""
        for tile in range(self.tiles):
            yield tile, slice(self.pointers[tile * self.rows], self.pointers[(tile + 1) * self.rows])
