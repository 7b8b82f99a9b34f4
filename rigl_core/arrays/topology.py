"""The topology update: drop the weakest connections, grow the most promising (RigL paper, Algorithm 1).

Every update of every method goes through `updated_mask`, in all frameworks, eager and compiled. It is written over an
explicit namespace ``xp`` (see `rigl_core.arrays.namespace`). Connections lie along the last axis: arrays are flat, or
(groups, connections of each), where every group has its own choice. Counts may be Python integers or traced scalars.
"""

from __future__ import annotations

import math

from rigl_core.arrays.namespace import Array, Namespace, add


def updated_mask(
    drop_scores: Array,
    grow_scores: Array | None,
    mask: Array,
    keep: Array | int,
    grow: Array | int,
    *,
    xp: Namespace,
    negative: Array | None = None,
) -> tuple[Array, Array]:
    """The topology after one update, and the connections that it keeps from the old one.

    Args:
        drop_scores: >= 0, without NaN; the active connections with the lowest scores are dropped.
        grow_scores: >= 0, without NaN; the connections outside those kept with the highest scores are grown. None grows
            nothing.
        mask: bool array, the current topology.
        keep: active count minus the drop count.
        grow: the drop count.
        xp: the arrays' namespace.
        negative: bool array: keep some of these connections and some of the others, by two numbers. ``keep`` is then
            an int32 array: the number of others to keep, then the number of these.

    Returns:
        Two bool arrays: the new topology, with ``keep + grow`` true along the last axis, and the connections kept.
    """
    kept = kept_mask(drop_scores, mask, keep, xp=xp, negative=negative)
    if grow_scores is None:
        return kept, kept
    return kept | best_of(grow_scores, grow, outside=kept, xp=xp), kept


def kept_mask(
    drop_scores: Array, mask: Array, keep: Array | int, *, xp: Namespace, negative: Array | None = None
) -> Array:
    """The mask of the ``keep`` active connections with the largest drop scores; see `updated_mask`."""
    if negative is None:
        return best_of(drop_scores, keep, among=mask, xp=xp)
    parts = (mask & ~negative, keep[0]), (mask & negative, keep[1])  # type: ignore[index]
    first, second = (best_of(drop_scores, number, among=part, xp=xp) for part, number in parts)
    return first | second


def best_of(
    scores: Array, k: Array | int, *, xp: Namespace, among: Array | None = None, outside: Array | None = None
) -> Array:
    """The mask of the ``k`` largest scores among some connections; among equals the lower index wins.

    Args:
        scores: without NaN, and >= 0 where connections are left out; the choice is along the last axis.
        k: the number to choose, from 0 to the number of these connections.
        xp: the arrays' namespace.
        among: bool array, the connections to choose from; all if neither ``among`` nor ``outside`` is given.
        outside: bool array, the connections not to choose from.
    """
    if xp.best_of is not None:  # finds the same mask faster (`rigl_core.step.selection` on the host), or over shards
        return xp.best_of(scores, k, among=among, outside=outside)
    if among is None and outside is None:
        return top_k_mask(scores, k, xp=xp)
    lowest = xp.full_like(scores, -1)
    eligible = xp.where(among, scores, lowest) if outside is None else xp.where(outside, lowest, scores)
    return top_k_mask(eligible, k, xp=xp)


def top_k_mask(scores: Array, k: Array | int, *, xp: Namespace) -> Array:
    """The mask of the ``k`` largest scores; among equals the lower index wins.

    Args:
        scores: array without NaN; the choice is along the last axis.
        k: the number to choose, from 0 to the size of the last axis.
        xp: the arrays' namespace.

    Returns:
        Bool array of the scores' shape with exactly ``k`` true along the last axis.
    """
    threshold = xp.kth_largest(scores, k)
    return _filled(scores > threshold, scores == threshold, k, xp)


def top_k_with(first: Array, scores: Array, k: Array | int, *, xp: Namespace) -> Array:
    """The mask of ``first``, and of the largest other scores up to ``k`` in all; among equals the lower index wins.

    Args:
        first: bool array; where more than ``k`` are true along the last axis, these are the mask.
        scores: array without NaN; the choice is along the last axis.
        k: the number to choose.
        xp: the arrays' namespace.
    """
    ranked = xp.where(first, _highest(scores, xp), scores)
    threshold = xp.kth_largest(ranked, k)
    tied = ranked == threshold
    return _filled((ranked > threshold) | (first & tied), ~first & tied, k, xp)


def _filled(above: Array, tied: Array, k: Array | int, xp: Namespace) -> Array:
    """``above``, filled up to ``k`` with the first ones of those that are tied."""
    room = k - add(above, xp=xp)
    if xp.first is not None:  # finds the same connections without a sum over shards
        return above | xp.first(tied, room)
    return above | (tied & (xp.cumulative_sum(tied, axis=-1, dtype=xp.int32) <= room))


def _highest(scores: Array, xp: Namespace) -> Array:
    """The highest score that there is, everywhere."""
    if scores.dtype == xp.int32:
        return xp.full_like(scores, 2**31 - 1)
    return xp.full_like(scores, 1) * math.inf


def magnitude(x: Array, *, xp: Namespace) -> Array:
    """|x| as a score: NaN, -0 and subnormal numbers count as 0, infinities rank highest.

    Some frameworks flush subnormal numbers to zero and others do not. Here they count as 0 everywhere, so that the
    ranking is the same.
    """
    absolute = xp.abs(x)
    return xp.where(absolute >= xp.finfo(x.dtype).smallest_normal, absolute, xp.zeros_like(absolute))


def normal(x: Array, *, xp: Namespace) -> Array:
    """x, with 0 in place of NaN and subnormal numbers, so that sums and products are the same everywhere."""
    return xp.where(xp.abs(x) >= xp.finfo(x.dtype).smallest_normal, x, xp.zeros_like(x))
