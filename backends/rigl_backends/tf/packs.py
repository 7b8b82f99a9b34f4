"""Packs of layers: rows of one width, one layer below the other, from which one program chooses."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.tf.namespace import ROW

Table = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Pack:
    """Some layers, one below the other, each from a row of its own on.

    Attributes:
        layers: their positions.
        sizes: connections of each.
    """

    layers: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def last(self) -> Table:
        """The row after the last of each layer."""
        return np.cumsum([_rows(size) for size in self.sizes], dtype=np.int32)

    @property
    def first(self) -> Table:
        """The first row of each layer."""
        return np.concatenate([np.zeros(1, np.int32), self.last[:-1]])

    @property
    def layer(self) -> Table:
        """Which layer each row is of."""
        return np.repeat(np.arange(len(self.sizes), dtype=np.int32), self.last - self.first)

    @property
    def stop(self) -> Table:
        """The flat index in the pack that ends the layer of each row."""
        return (self.first * ROW + np.array(self.sizes, np.int32))[self.layer].astype(np.int32)

    def of_arrays(self, arrays: Sequence[tf.Tensor]) -> tf.Tensor:
        """The layers' flat arrays as the pack's rows, with zeros between them; of scalars, one number for each row."""
        if arrays[0].shape.rank == 0:
            return tf.gather(tf.stack(arrays), self.layer)[:, None]
        parts = [part for array in arrays for part in (array, tf.zeros([-array.shape[0] % ROW], array.dtype))]
        return tf.reshape(tf.concat(parts, axis=0), [-1, ROW])

    def parts(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """The layers' flat arrays out of the pack."""
        flat, starts = tf.reshape(rows, [-1]), self.first * ROW
        return [flat[start : start + size] for start, size in zip(starts, self.sizes, strict=True)]


def packs_of(sizes: Sequence[int], kinds: Sequence[Hashable]) -> list[Pack]:
    """Packs of layers of one kind: large layers on their own, and others up to half the height of the largest.

    Args:
        sizes: connections of each layer.
        kinds: only layers of the same kind lie together.
    """
    packs: dict[Hashable, list[list[int]]] = {kind: [] for kind in kinds}
    height = max(map(_rows, sizes), default=0) // 2  # what is put together takes memory twice
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        own, rows = packs[kinds[i]], _rows(sizes[i])
        pack = next((pack for pack in own if rows + sum(_rows(sizes[j]) for j in pack) <= height), None)
        if pack is None:
            own.append([i])
        else:
            pack.append(i)
    return [Pack(tuple(pack), tuple(sizes[i] for i in pack)) for own in packs.values() for pack in own]


def _rows(size: int) -> int:
    return -(-size // ROW)
