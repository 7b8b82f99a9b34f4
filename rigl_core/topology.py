"""The topology update: drop the weakest connections, grow the most promising (RigL paper, Algorithm 1).

The only code that runs inside compiled programs. It is written once over an explicit namespace ``xp``
(see `rigl_core.namespace`) and takes flat arrays, so it means the same in every framework. Counts may
be Python integers or traced scalars.
"""

from __future__ import annotations

from rigl_core.namespace import Array, Namespace


def magnitude(x: Array, *, xp: Namespace) -> Array:
    """|x| as a score: NaN, -0 and subnormal numbers count as 0, infinities rank highest.

    Some frameworks flush subnormal numbers to zero and others do not; counting them as 0 everywhere
    keeps the ranking the same.
    """
    absolute = xp.abs(x)
    return xp.where(absolute >= xp.smallest_normal(absolute), absolute, xp.zeros_like(absolute))


def top_k_mask(scores: Array, k: Array | int, *, xp: Namespace) -> Array:
    """The mask of the ``k`` largest scores; among equals the lower flat index wins.

    Args:
        scores: flat array without NaN.
        k: how many, from 0 to ``scores.size``.

    Returns:
        Flat bool array with exactly ``k`` true.
    """
    threshold = xp.kth_largest(scores, k)
    above = scores > threshold
    tied = scores == threshold
    room = k - xp.count(above)
    return above | (tied & (xp.cumulative_count(tied) <= room))


def updated_mask(
    drop_scores: Array, grow_scores: Array, mask: Array, keep: Array | int, grow: Array | int, *, xp: Namespace
) -> Array:
    """The topology after one update.

    Keeps the ``keep`` active connections with the largest drop scores, whatever the scores of inactive
    ones; then grows the ``grow`` largest grow scores among everything not kept, the just-dropped included.

    Args:
        drop_scores: flat, >= 0, without NaN: how much each active connection is worth keeping.
        grow_scores: flat, >= 0, without NaN: how much each connection promises.
        mask: flat bool array, the current topology.
        keep: active count minus the drop count.
        grow: the drop count.

    Returns:
        Flat bool array with ``keep + grow`` true.
    """
    kept = top_k_mask(xp.where(mask, drop_scores, xp.full_like(drop_scores, -1)), keep, xp=xp)
    grown = top_k_mask(xp.where(kept, xp.full_like(grow_scores, -1), grow_scores), grow, xp=xp)
    return kept | grown


def survivors(values: Array, old_mask: Array, new_mask: Array, *, xp: Namespace) -> Array:
    """Weights, or one per-weight optimizer state, after an update.

    Connections active before and after keep their value bit for bit, also those dropped and regrown at
    once; newly active ones start at 0, and everything outside the new mask is exactly 0.
    """
    return xp.where(old_mask & new_mask, values, xp.zeros_like(values))
