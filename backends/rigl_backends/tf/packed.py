"""The choice of connections in many layers at once, for XLA, where NumPy cannot go.

XLA takes half a second to compile what one layer chooses with. So the layers are laid in packs: rows of one width, one
layer below the other, each pack as large as the largest layer. All packs are chosen from by the same small program,
which goes from layer to layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf

from rigl_backends.tf.namespace import ordered_integers
from rigl_backends.tf.namespace import tensorflow_namespace as xp
from rigl_backends.tf.packs import ROW, Pack, packs_of
from rigl_core.connections import Connections
from rigl_core.criteria import CRITERIA
from rigl_core.recipe import Recipe


def can_pack(recipe: Recipe) -> bool:
    """Whether the criteria look at nothing but the numbers of a connection, as those of the core do."""
    return all(criterion is None or criterion.name in CRITERIA for criterion in (recipe.drop, recipe.grow))


def updated_masks(
    recipe: Recipe,
    layers: Sequence[Connections],
    masks: Sequence[tf.Tensor],
    keep: Sequence[tf.Tensor],
    grow: Sequence[tf.Tensor],
) -> list[tf.Tensor]:
    """The new masks of layers that choose freely, each on its own: what `rigl_core.update.move_pool` gives.

    Args:
        recipe: whose criteria choose.
        layers: their connections.
        masks: flat, the current topologies.
        keep: how many connections each layer keeps, int32.
        grow: how many it grows.
    """

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # traced once for all packs of the same dtypes
    def choose(rows: _Rows, keep: tf.Tensor, grow: tf.Tensor, mask: tf.Tensor, *arrays: tf.Tensor) -> tf.Tensor:
        connections = replace(layers[0], layer=None).with_arrays(arrays)
        kept = _best_of(mask, recipe.drop.score(connections.for_dropping, xp), keep, rows)
        if recipe.grow is None:
            return kept
        return kept | _best_of(rows.inside & ~kept, recipe.grow.score(connections, xp), grow, rows)

    new: list[Any] = [None] * len(layers)
    flat = [(mask, *connections.arrays) for mask, connections in zip(masks, layers, strict=True)]
    for pack in packs_of([mask.shape[0] for mask in masks], [tuple(x.dtype for x in arrays) for arrays in flat]):
        counts = [pack.of_numbers([count[i] for i in pack.layers]) for count in (keep, grow)]
        arrays = [pack.of_arrays(own) for own in zip(*(flat[i] for i in pack.layers), strict=True)]
        for i, mask in zip(pack.layers, pack.parts(choose(_rows(pack), *counts, *arrays)), strict=True):
            new[i] = mask
    return new


class _Rows(NamedTuple):
    """What is traced of a pack's layout.

    Attributes:
        count: how many layers there are.
        first: the first row of each.
        last: the row after its last.
        layer: which layer each row is of.
        inside: whether there is a connection at each place.
    """

    count: tf.Tensor
    first: tf.Tensor
    last: tf.Tensor
    layer: tf.Tensor
    inside: tf.Tensor


def _rows(pack: Pack) -> _Rows:
    first, last, layer, stop = (tf.constant(table) for table in (pack.first, pack.last, pack.layer, pack.stop))
    return _Rows(tf.constant(len(pack.layers)), first, last, layer, _places(layer) < stop[:, None])


def _places(layer: tf.Tensor) -> tf.Tensor:
    """The flat index of each place in a pack."""
    return tf.reshape(tf.range(layer.shape[0] * ROW), [-1, ROW])


def _best_of(eligible: tf.Tensor, scores: tf.Tensor, k: tf.Tensor, rows: _Rows) -> tf.Tensor:
    """The largest scores among the eligible, ``k`` of each layer; among equals the lower index wins."""
    ordered = ordered_integers(scores)
    ordered = tf.where(eligible, ordered, -tf.ones_like(ordered))

    def choose(i: tf.Tensor, lowest: tf.Tensor, last_tied: tf.Tensor) -> tuple[tf.Tensor, ...]:
        own = _lowest(ordered, rows.first[i], rows.last[i], k[i])
        return i + 1, _put(lowest, i, own[0]), _put(last_tied, i, own[1])

    start = (tf.constant(0), tf.zeros_like(k, ordered.dtype), tf.zeros_like(k))
    _, lowest, last_tied = tf.while_loop(lambda i, *_: i < rows.count, choose, start)
    of_rows = tf.gather(lowest, rows.layer)[:, None]
    tied = (ordered == of_rows) & (_places(rows.layer) <= tf.gather(last_tied, rows.layer)[:, None])
    return (ordered > of_rows) | tied


def _lowest(x: tf.Tensor, first: tf.Tensor, last: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A number that splits the ``k`` largest of some rows from the others: all above it are among them.

    Returns:
        The number, and the index of the last one that equals it and is among them too; -1 if none is.
    """

    def count(compare: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        add = lambda row, total: (row + 1, total + _sum(compare(x[row])))  # noqa: E731
        return tf.while_loop(lambda row, _: row < last, add, (first, tf.constant(0)))[1]

    def add_bit(bit: tf.Tensor, lowest: tf.Tensor, reached: tf.Tensor) -> tuple[tf.Tensor, ...]:
        higher = lowest | tf.bitwise.left_shift(tf.ones_like(lowest), tf.cast(bit, lowest.dtype))
        many = count(lambda row: row >= higher)
        return bit - 1, tf.where(many >= k, higher, lowest), tf.where(many >= k, many, reached)

    start = (tf.constant(8 * x.dtype.size - 2), tf.zeros([], x.dtype), tf.constant(-1))
    _, lowest, _ = tf.while_loop(lambda bit, _, reached: (bit >= 0) & (reached != k), add_bit, start)
    room = k - count(lambda row: row > lowest)

    def skip(row: tf.Tensor, _: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return row + 1, total, total + _sum(x[row] == lowest)

    after, before, _ = tf.while_loop(lambda _, __, total: total < room, skip, (first, tf.constant(0), tf.constant(0)))
    row = tf.maximum(after - 1, 0)
    tied, columns = x[row] == lowest, tf.range(ROW)

    def halve(bit: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        further = column | tf.bitwise.left_shift(1, bit)
        return bit - 1, tf.where(_sum(tied & (columns < further)) < room - before, further, column)

    start_column = (tf.constant(ROW.bit_length() - 2), tf.constant(0))
    column = tf.while_loop(lambda bit, _: bit >= 0, halve, start_column)[1]
    return lowest, tf.where(room > 0, row * ROW + column, -1)


def _put(values: tf.Tensor, i: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_update(values, [[i]], [value])


def _sum(chosen: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(chosen, tf.int32))
