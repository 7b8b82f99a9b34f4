"""Whole numbers shared in proportion, in int32 alone: the counts are the same in every framework, eager and compiled.

When connections move between layers, the plan cannot know how many connections each layer will get. The functions here
compute these counts from the arrays. They avoid floats: a sum of floats depends on the order of the additions, and each
framework has its own order.
"""

from __future__ import annotations

import math

from rigl_core.arrays.namespace import Array, Namespace, add, count
from rigl_core.arrays.topology import magnitude, top_k_mask

_ROUNDS = 3
_MEAN_BITS, _MORE_BITS, _LAYER_BITS = 16, 4, 7
MOST = 2 ** (_MEAN_BITS + _MORE_BITS + _LAYER_BITS)
"""The weights of `in_proportion` must add up to less than this number."""


def in_proportion(total: Array, weights: Array, *, xp: Namespace) -> Array:
    """``total`` shared in proportion to ``weights``, by largest remainder; among equal remainders the earlier is first.

    For example, 10 in proportion to (2, 1, 1) gives (5, 3, 2).

    Args:
        total: int32 array with one number, at least 0.
        weights: flat int32, >= 0, with a sum below `MOST`. If all are 0, the shares are equal.
        xp: the arrays' namespace.

    Returns:
        Flat int32 that adds up to ``total``.
    """
    weights = xp.where((weights * 0 + add(weights, xp=xp)) == 0, weights * 0 + 1, weights)
    whole = add(weights, xp=xp)
    shares, rest = weights * 0, weights * 0
    for shift in range(30, -1, -3):  # long multiplication and division, three bits of ``total`` at a time
        rest = rest * 8 + (xp.bitwise_right_shift(total, shift) & 7) * weights
        shares = shares * 8 + rest // whole
        rest = rest % whole
    left = total - add(shares, xp=xp)
    return shares + xp.astype(top_k_mask(rest, left, xp=xp), xp.int32)


def within_room(total: Array, weights: Array, room: Array, *, xp: Namespace) -> Array:
    """``total`` shared in proportion to ``weights``, where no place gets more than its ``room``.

    A share that exceeds its room is cut. The excess is shared among the places that have room left, in the same way,
    twice. The rest fills the places one after the other. For example, 10 in proportion to (8, 1, 1) with room for
    (4, 5, 5) gives (4, 3, 3).

    Args:
        total: int32 array with one number, at most the sum of ``room``.
        weights: flat int32, as in `in_proportion`.
        room: flat int32, >= 0, the largest number that each place can get.
        xp: the arrays' namespace.

    Returns:
        Flat int32 that adds up to ``total``.
    """
    given = room * 0
    for _ in range(_ROUNDS):
        open_weights = xp.where(given < room, weights, weights * 0)
        share = in_proportion(total - add(given, xp=xp), open_weights, xp=xp)
        spare = room - given
        given = given + xp.where(share < spare, share, spare)
    spare = room - given
    left = total - add(given, xp=xp)
    filled_before = xp.cumulative_sum(spare, axis=-1, dtype=xp.int32) - spare
    more = left - filled_before
    more = xp.where(more < 0, more * 0, more)
    return given + xp.where(more < spare, more, spare)


def share_of(number: Array, digits: Array, *, xp: Namespace) -> Array:
    """floor(fraction * number), exactly, for a decimal fraction from 0 to 1.

    Args:
        number: int32 array, >= 0.
        digits: flat int32, the digits of the fraction: first its whole part (0 or 1), then its decimals.
        xp: the arrays' namespace.

    Returns:
        Int32 array of the shape of ``number``.
    """
    # From the last decimal to the first: share = floor((digit * number + share) / 10). The floors in between change
    # nothing. The number is split into tens and ones, since digit * number can exceed int32.
    tens, ones = number // 10, number % 10
    share = number * 0
    for place in range(digits.shape[0] - 1, 0, -1):
        digit = digits[place]
        share = digit * tens + share // 10 + (digit * ones + share % 10) // 10
    return digits[0] * number + share


def mean_scores(scores: list[Array], masks: list[Array], *, xp: Namespace) -> Array:
    """The mean score of each layer's active connections, as whole numbers on one scale for all layers.

    A power of two scales all scores, so that the largest of them has 16 bits; then their fractions are cut. The mean of
    these integers is exact, and then cut to four binary places, 20 bits in all. With more than 128 layers the means
    lose their last bits, so that their sum stays below `MOST`. Infinite scores count as 0.

    Args:
        scores: flat floats for each layer, >= 0, without NaN.
        masks: flat bool arrays of the same sizes: the active connections.
        xp: the arrays' namespace.

    Returns:
        Flat int32, one number below 2**20 for each layer.
    """
    finite = [_finite(xp.widen(values), mask, xp) for values, mask in zip(scores, masks, strict=True)]
    largest = xp.kth_largest(xp.concat([_largest(values, xp) for values in finite]), 1)
    scale = _scale(largest, xp)
    more = _scale(largest * scale, xp)  # very small scores need a factor that one float cannot hold: 2**141 in float32
    means = [
        _mean(xp.astype(values * scale * more, xp.int32), mask, xp) for values, mask in zip(finite, masks, strict=True)
    ]
    return xp.bitwise_right_shift(xp.concat(means), max((len(means) - 1).bit_length() - _LAYER_BITS, 0))


def _finite(scores: Array, mask: Array, xp: Namespace) -> Array:
    scores = magnitude(scores, xp=xp)
    return xp.where(mask & (scores < math.inf), scores, xp.zeros_like(scores))


def _largest(scores: Array, xp: Namespace) -> Array:
    return xp.reshape(xp.kth_largest(scores, 1), (1,))


def _scale(largest: Array, xp: Namespace) -> Array:
    """The power of two that brings ``largest`` into [2**15, 2**16), or as near as a power in its dtype can."""
    scale = xp.full_like(largest, 1)
    powers = [512, 256, 128] if xp.finfo(largest.dtype).smallest_normal < 1e-300 else []
    for power in [*powers, 64, 32, 16, 8, 4, 2, 1]:
        factor = 2.0**-power
        scale = xp.where(largest * scale >= 2.0 ** (_MEAN_BITS - 1 + power), scale * factor, scale)
    for power in [*powers, 64, 32, 16, 8, 4, 2, 1]:
        factor = 2.0**power
        scale = xp.where(largest * scale < 2.0 ** (_MEAN_BITS - power), scale * factor, scale)
    return scale


def _mean(numbers: Array, mask: Array, xp: Namespace) -> Array:
    """The mean of the active integers, below 2**16, cut to 4 binary places.

    It is a long division in base 2. The sum of the integers could exceed int32, so its places are counts of set bits.
    """
    active = count(mask, xp=xp)
    active = xp.where(active == 0, active + 1, active)
    mean, rest = active * 0, active * 0
    for bit in range(_MEAN_BITS - 1, -_MORE_BITS - 1, -1):
        ones = count(xp.bitwise_right_shift(numbers, bit) & 1, xp=xp) if bit >= 0 else active * 0
        rest = rest * 2 + ones
        mean = mean * 2 + rest // active
        rest = rest % active
    return mean
