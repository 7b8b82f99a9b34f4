"""The topology update: drop the weakest connections, grow the most promising (RigL paper, Algorithm 1).

What runs inside compiled programs. It is written once over an explicit namespace ``xp`` (see
`rigl_core.arrays.namespace`), so it means the same in every framework. Connections lie along the last axis: arrays are
flat, or (groups, connections of each) where every group has its own choice. Counts may be Python integers or
traced scalars.
"""

from __future__ import annotations

from rigl_core.arrays.namespace import Array, Namespace


def magnitude(x: Array, *, xp: Namespace) -> Array:
    """|x| as a score: NaN, -0 and subnormal numbers count as 0, infinities rank highest.

    Some frameworks flush subnormal numbers to zero and others do not; counting them as 0 everywhere
    keeps the ranking the same.
    """
    absolute = xp.abs(x)
    return xp.where(absolute >= xp.smallest_normal(absolute), absolute, xp.zeros_like(absolute))


def normal(x: Array, *, xp: Namespace) -> Array:
    """x with its sign, but NaN and subnormal numbers as 0, so that sums and products are the same everywhere."""
    return xp.where(xp.abs(x) >= xp.smallest_normal(x), x, xp.zeros_like(x))


def top_k_mask(scores: Array, k: Array | int, *, xp: Namespace) -> Array:
    """The mask of the ``k`` largest scores; among equals the lower index wins.

    Args:
        scores: array without NaN; the choice is along the last axis.
        k: how many, from 0 to the last axis's size.

    Returns:
        Bool array of the scores' shape with exactly ``k`` true along the last axis.
    """
    threshold = xp.kth_largest(scores, k)
    above = scores > threshold
    tied = scores == threshold
    room = k - xp.count(above)
    return above | (tied & (xp.cumulative_count(tied) <= room))


def kept_mask(drop_scores: Array, mask: Array, keep: Array | int, *, xp: Namespace) -> Array:
    """The ``keep`` active connections with the largest drop scores, whatever the scores of inactive ones."""
    return top_k_mask(xp.where(mask, drop_scores, xp.full_like(drop_scores, -1)), keep, xp=xp)


def grown_mask(grow_scores: Array, kept: Array, grow: Array | int, *, xp: Namespace) -> Array:
    """The ``grow`` largest grow scores among everything not kept, the just-dropped included."""
    return top_k_mask(xp.where(kept, xp.full_like(grow_scores, -1), grow_scores), grow, xp=xp)


def updated_mask(
    drop_scores: Array, grow_scores: Array, mask: Array, keep: Array | int, grow: Array | int, *, xp: Namespace
) -> Array:
    """The topology after one update: what is kept, and what grows.

    Args:
        drop_scores: >= 0, without NaN: how much each active connection is worth keeping.
        grow_scores: >= 0, without NaN: how much each connection promises.
        mask: bool array, the current topology.
        keep: active count minus the drop count.
        grow: the drop count.

    Returns:
        Bool array with ``keep + grow`` true along the last axis.
    """
    kept = kept_mask(drop_scores, mask, keep, xp=xp)
    return kept | grown_mask(grow_scores, kept, grow, xp=xp)


def survivors(values: Array, old_mask: Array, new_mask: Array, *, xp: Namespace) -> Array:
    """Weights, or one per-weight optimizer state, after an update.

    Connections active before and after keep their value bit for bit, also those dropped and regrown at
    once; newly active ones start at 0, and everything outside the new mask is exactly 0.
    """
    return xp.where(old_mask & new_mask, values, xp.zeros_like(values))
