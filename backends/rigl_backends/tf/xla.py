"""Topology updates for XLA on CPUs, where NumPy cannot be called. `move` is the door.

XLA takes half a second to compile what one layer chooses with. So layers lie in packs: rows of one width, one layer
below the other. One small program chooses from all layers of a pack, one after the other. Every pack moves in a loop of
its own, so that the arrays of the next one take the same memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import tensorflow as tf

from rigl_backends.tf import namespace
from rigl_backends.tf.layer import Pool
from rigl_backends.tf.namespace import ROW, has_gpu, in_xla, ordered_integers
from rigl_backends.tf.packs import Pack, packs_of
from rigl_core.adapter import CRITERIA, Connections, Counts, Rule, Updated, chooses_freely, move_pool


def move(pools: Sequence[Pool], *, when: tf.Tensor) -> bool:
    """The update of every pool, if XLA compiles it for a CPU; else nothing.

    Args:
        pools: with what the update reads.
        when: whether there is an update.

    Returns:
        Whether the pools move here.
    """
    if not in_xla() or has_gpu():  # which had to wait for each row
        return False
    fitting = [pool for pool in pools if _can_lie_in_a_pack(pool)]
    kinds = [(pool.layers[0].variable.dtype, getattr(pool.gradients[0], "dtype", None)) for pool in fitting]
    for pack in packs_of([pool.layers[0].layer.size for pool in fitting], kinds):
        _once_if(when, functools.partial(_move_pack, pack, [fitting[i] for i in pack.layers]))
    for pool in pools:
        if not _can_lie_in_a_pack(pool):
            _once_if(when, functools.partial(_move_pool, pool))
    return True


def _once_if(condition: tf.Tensor, act: Callable[[], None]) -> None:
    """A branch as a loop, which changes variables where they lie; a branch of XLA would return copies of them."""

    def body(_: tf.Tensor) -> list[tf.Tensor]:
        act()
        return [tf.constant(False)]

    tf.while_loop(lambda waiting: waiting, body, [condition])


def _can_lie_in_a_pack(pool: Pool) -> bool:
    """Whether it is one layer, without slices, whose criteria look at nothing but the numbers of a connection."""
    first, rule = pool.layers[0], pool.layers[0].rule
    known = all(criterion is None or criterion.name in CRITERIA for criterion in (rule.drop, rule.grow))
    alone = len(pool.layers) == 1 and first.layer.slices == 1
    return alone and known and chooses_freely(rule, Connections(None, layer=first.layer))


def _move_pool(pool: Pool) -> None:
    """The update of layers that lie in no pack. What lies outside their masks is counted before it is cut."""
    for layer in pool.layers:
        layer.count_outside()
    pool.move()


def _move_pack(pack: Pack, pools: Sequence[Pool]) -> None:
    """The update of layers on their own that lie in a pack."""
    layers = [pool.layers[0] for pool in pools]
    before = [layer.at_update(pool.update, pool.gradients[0]) for layer, pool in zip(layers, pools, strict=True)]
    own = [pool.counts() for pool in pools]
    for layer in layers:
        layer.count_outside()
    # Always so, which XLA does not know: it counts first, and its copies for that are gone before the others are made.
    masks = [layer.mask & (tf.convert_to_tensor(layer.found_outside) >= 0) for layer in layers]
    updated = updated_in_pack(pack, layers[0].rule, before, masks, own)
    for layer, connections, new in zip(layers, before, updated, strict=True):
        layer.take(connections, new)


def updated_in_pack(
    pack: Pack, rule: Rule, layers: Sequence[Connections], masks: Sequence[tf.Tensor], counts: Sequence[Counts]
) -> list[Updated]:
    """What `rigl_core.adapter.move_pool` gives for each layer of a pack.

    Args:
        pack: says how the layers lie.
        rule: whose criteria choose.
        layers: their connections.
        masks: flat, the current topologies.
        counts: how many connections each layer keeps and grows, int32.
    """
    arrays = [(mask, *connections.arrays) for mask, connections in zip(masks, layers, strict=True)]
    mask, *others = (pack.of_arrays(own) for own in zip(*arrays, strict=True))
    connections = layers[0].replace(layer=None).with_arrays(others)
    together = Counts(tf.stack([own.keep for own in counts]), tf.stack([own.grow for own in counts]))
    (updated,) = move_pool(rule, [connections], [mask], together, xp=packed_namespace(pack))
    return [Updated(*own) for own in zip(pack.parts(updated.mask), pack.parts(updated.survivors), strict=True)]


def packed_namespace(pack: Pack) -> SimpleNamespace:
    """TensorFlow's operations on the arrays of a pack, of which each layer has its own choice and its own sums."""
    own = {"on_host": None, "best_of": functools.partial(_best_of, pack), "sum": functools.partial(_sum, pack)}
    return SimpleNamespace(**{**vars(namespace), **own})


def _sum(pack: Pack, x: tf.Tensor, /, *, axis: int, dtype: tf.DType, keepdims: bool) -> tf.Tensor:
    """The sum of each layer, in each of its rows, read row by row: XLA would hold the numbers of all rows."""

    def add(row: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        own = tf.reduce_sum(tf.cast(x[row], dtype), keepdims=True)
        return row + 1, tf.tensor_scatter_nd_add(total, [[tf.gather(pack.layer, row)]], own)

    start = (tf.constant(0), tf.zeros([len(pack.layers)], dtype))
    return tf.gather(tf.while_loop(lambda row, _: row < len(pack.layer), add, start)[1], pack.layer)[:, None]


def _best_of(
    pack: Pack, scores: tf.Tensor, k: tf.Tensor, *, among: tf.Tensor | None = None, outside: tf.Tensor | None = None
) -> tf.Tensor:
    """See `rigl_core.adapter.best_of`; ``k`` has a number for each layer."""
    ordered = ordered_integers(scores)
    places = tf.range(len(pack.layer))[:, None] * ROW + tf.range(ROW)  # the flat index of each place
    eligible = among if outside is None else (places < pack.stop[:, None]) & ~outside
    ordered = tf.where(eligible, ordered, -tf.ones_like(ordered))
    borders = _borders(ordered, tf.constant(pack.first), tf.constant(pack.last), k)
    return _within(ordered, places, *(tf.gather(border, pack.layer)[:, None] for border in borders))


def _within(x: tf.Tensor, places: tf.Tensor, least: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
    """Which numbers are above the border that `_border` finds."""
    return (x > least) | ((x == least) & (places < stop))


@tf.function(autograph=False, reduce_retracing=True)  # type: ignore[untyped-decorator]  # tracing takes a while
def _borders(x: tf.Tensor, first: tf.Tensor, last: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The border of each layer, from its first row to its last."""

    def add(i: tf.Tensor, least: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, ...]:
        own = _border(x, first[i], last[i], k[i])
        return i + 1, _put(least, i, own[0]), _put(stop, i, own[1])

    start = (tf.constant(0), tf.zeros_like(k, x.dtype), tf.zeros_like(k))
    _, least, stop = tf.while_loop(lambda i, *_: i < tf.size(k), add, start)
    return least, stop


def _put(values: tf.Tensor, i: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_update(values, [[i]], [value])


def _border(x: tf.Tensor, first: tf.Tensor, last: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What splits the ``k`` largest numbers of some rows from the others, bit by bit from the highest.

    Returns:
        The least number among them, or one that is not there; and of those equal to it, where the others begin.
    """
    bits, everywhere = 31, tf.int32.max  # of a place

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
