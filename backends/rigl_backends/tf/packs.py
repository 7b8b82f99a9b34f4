"""How layers lie in packs: rows of one width, each layer from a row of its own on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

ROW = 1 << 14
"""Connections read at a time: few enough for the cache, enough for the loops around them to cost little."""

Table = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Pack:
    """Some layers, and room for as many as any pack beside it has.

    Attributes:
        layers: their positions.
        sizes: connections of each.
        height: rows, some of which may be left over at the end.
        room: layers that the tables have room for.
    """

    layers: tuple[int, ...]
    sizes: tuple[int, ...]
    height: int
    room: int

    @property
    def last(self) -> Table:
        """The row after the last of each layer."""
        ends = np.cumsum([_rows(size) for size in self.sizes], dtype=np.int32)
        return np.pad(ends, (0, self.room - len(ends)), mode="edge")

    @property
    def first(self) -> Table:
        """The first row of each layer."""
        return np.concatenate([np.zeros(1, np.int32), self.last[:-1]])

    @property
    def layer(self) -> Table:
        """Which layer each row is of; what is left over counts as the last's."""
        layer = np.searchsorted(self.last, np.arange(self.height), side="right")
        return np.minimum(layer, len(self.layers) - 1).astype(np.int32)

    @property
    def stop(self) -> Table:
        """The flat index in the pack that ends the layer of each row."""
        ends = self.first[: len(self.sizes)] * ROW + np.array(self.sizes, np.int32)
        return ends[self.layer].astype(np.int32)

    def of_arrays(self, arrays: Sequence[tf.Tensor]) -> tf.Tensor:
        """The layers' flat arrays as the pack's rows, with zeros between them; of scalars, one number for each row."""
        if arrays[0].shape.rank == 0:
            return tf.gather(tf.stack(arrays), self.layer)[:, None]
        ends = self.last[: len(self.sizes)] * ROW
        ends[-1] = self.height * ROW
        gaps = ends - self.first[: len(self.sizes)] * ROW - np.array(self.sizes)
        parts = [part for array, gap in zip(arrays, gaps, strict=True) for part in (array, _zeros(array, gap))]
        return tf.reshape(tf.concat(parts, axis=0), [self.height, ROW])

    def of_numbers(self, numbers: Sequence[tf.Tensor]) -> tf.Tensor:
        """One number for each layer."""
        return tf.pad(tf.stack(numbers), [[0, self.room - len(numbers)]])

    def parts(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """The layers' flat arrays out of the pack."""
        flat = tf.reshape(rows, [-1])
        starts = self.first * ROW
        return [flat[start : start + size] for start, size in zip(starts, self.sizes)]  # noqa: B905


def packs_of(sizes: Sequence[int], kinds: Sequence[Hashable]) -> list[Pack]:
    """Packs of layers of one kind, no higher than the largest layer needs.

    Args:
        sizes: connections of each layer.
        kinds: only layers of the same kind lie together.
    """
    packs: dict[Hashable, list[list[int]]] = {kind: [] for kind in kinds}
    height = max(map(_rows, sizes), default=0)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        rows = _rows(sizes[i])
        fitting = (pack for pack in packs[kinds[i]] if rows + sum(_rows(sizes[j]) for j in pack) <= height)
        pack = next(fitting, None)
        if pack is None:
            packs[kinds[i]].append([i])
        else:
            pack.append(i)
    every = [pack for own in packs.values() for pack in own]
    room = max(map(len, every), default=0)
    return [Pack(tuple(pack), tuple(sizes[i] for i in pack), height, room) for pack in every]


def _rows(size: int) -> int:
    return -(-size // ROW)


def _zeros(like: tf.Tensor, count: int) -> tf.Tensor:
    return tf.zeros([count], like.dtype)
