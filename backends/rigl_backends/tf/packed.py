"""The choice of connections in many layers at once, for XLA on CPUs, where NumPy cannot be called.

XLA takes half a second to compile what one layer chooses with. So the layers are laid in packs: rows of one width, one
layer below the other, each pack as large as the largest layer. All packs are chosen from by the same small program,
which goes from layer to layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf

from rigl_backends.tf.namespace import ordered_integers
from rigl_backends.tf.namespace import tensorflow_namespace as xp
from rigl_backends.tf.packs import ROW, Pack, packs_of
from rigl_core.arrays.connections import Connections
from rigl_core.parts.criteria import CRITERIA
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
    """The new masks of layers that choose freely, each on its own: what `rigl_core.step.update.move_pool` gives.

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
    places = _places(rows.layer)

    def choose(i: tf.Tensor, least: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, ...]:
        own = _border(ordered, rows.first[i], rows.last[i], k[i])
        return i + 1, _put(least, i, own[0]), _put(stop, i, own[1])

    start = (tf.constant(0), tf.zeros_like(k, ordered.dtype), tf.zeros_like(k))
    _, least, stop = tf.while_loop(lambda i, *_: i < rows.count, choose, start)
    return _within(ordered, places, *(tf.gather(border, rows.layer)[:, None] for border in (least, stop)))


def _within(x: tf.Tensor, places: tf.Tensor, least: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
    """Which numbers are above the border that `_border` finds."""
    return (x > least) | ((x == least) & (places < stop))


def _border(x: tf.Tensor, first: tf.Tensor, last: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What splits the ``k`` largest numbers of some rows from the others, bit by bit from the highest.

    Returns:
        The least number among them, or one that is not there; and of those equal to it, where the others begin.
    """
    bits, everywhere = (x.shape[0] * ROW).bit_length(), tf.constant(x.shape[0] * ROW)

    def count(least: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        def add(row: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            within = _within(x[row], row * ROW + tf.range(ROW), least, stop)
            return row + 1, total + tf.reduce_sum(tf.cast(within, tf.int32))

        return tf.while_loop(lambda row, _: row < last, add, (first, tf.constant(0)))[1]

    def add_bit(bit: tf.Tensor, least: tf.Tensor, stop: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """First those of the number, which is to be large; then those of the place, which is to be small."""
        of_number = bit >= bits
        one = tf.bitwise.left_shift(1, tf.where(of_number, 0, bit))
        shift = tf.cast(tf.maximum(bit - bits, 0), x.dtype)
        higher = tf.where(of_number, least | tf.bitwise.left_shift(tf.ones_like(least), shift), least)
        further = tf.where(of_number, everywhere, stop | one)
        many = count(higher, further)
        found = many == k
        take = found | (of_number == (many > k))
        take_stop = found | (take & ~of_number)  # the places wait until the number is found
        return bit - 1, tf.where(take, higher, least), tf.where(take_stop, further, stop), found

    start = (tf.constant(bits + 8 * x.dtype.size - 2), tf.zeros([], x.dtype), tf.constant(0), tf.constant(False))
    _, least, stop, _ = tf.while_loop(lambda bit, _, __, found: (bit >= 0) & ~found, add_bit, start)
    return least, stop


def _put(values: tf.Tensor, i: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_update(values, [[i]], [value])
