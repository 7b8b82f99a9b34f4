"""Whole numbers shared in proportion, in int32 alone: the same counts in every framework, eager and compiled.

What a plan cannot know beforehand, how many connections each layer gets when they move between layers, is decided
here from the arrays themselves. Floats would not do: their sums depend on the order of adding, which frameworks choose.
"""

from __future__ import annotations

import math

from rigl_core.arrays.namespace import Array, Namespace
from rigl_core.arrays.topology import magnitude, top_k_mask

_ROUNDS = 3
_MEAN_BITS, _MORE_BITS, _LAYER_BITS = 16, 4, 7
MOST = 2 ** (_MEAN_BITS + _MORE_BITS + _LAYER_BITS)
"""What weights of `in_proportion` may add up to."""


def in_proportion(total: Array, weights: Array, *, xp: Namespace) -> Array:
    """``total`` shared in proportion to ``weights``, by largest remainder, the earlier first among equals.

    Args:
        total: int32 array of one number of at least 0.
        weights: flat int32, >= 0, adding up to less than `MOST`. If all are 0, they count as equal.

    Returns:
        Flat int32 that adds up to ``total``.
    """
    weights = xp.where((weights * 0 + xp.count(weights)) == 0, weights * 0 + 1, weights)
    whole = xp.count(weights)
    shares, rest = weights * 0, weights * 0
    for shift in range(30, -1, -3):  # long multiplication and division, three bits of ``total`` at a time
        rest = rest * 8 + (xp.shift_right(total, shift) & 7) * weights
        shares = shares * 8 + rest // whole
        rest = rest % whole
    left = total - xp.count(shares)
    return shares + xp.integers(top_k_mask(rest, left, xp=xp))


def within_room(total: Array, weights: Array, room: Array, *, xp: Namespace) -> Array:
    """``total`` shared in proportion to ``weights``, of which each place takes no more than its ``room``.

    What does not fit is shared among the others in the same way, a few times; what is left even then fills the
    places one after the other.

    Args:
        total: int32 array of one number, at most the sum of ``room``.
        weights: flat int32 as in `in_proportion`.
        room: flat int32.
    """
    given = room * 0
    for _ in range(_ROUNDS):
        open_weights = xp.where(given < room, weights, weights * 0)
        share = in_proportion(total - xp.count(given), open_weights, xp=xp)
        spare = room - given
        given = given + xp.where(share < spare, share, spare)
    spare = room - given
    left = total - xp.count(given)
    filled_before = xp.cumulative_count(spare) - spare
    more = left - filled_before
    more = xp.where(more < 0, more * 0, more)
    return given + xp.where(more < spare, more, spare)


def share_of(count: Array, digits: Array, *, xp: Namespace) -> Array:
    """floor(fraction * count), exactly, for a fraction in decimals.

    Args:
        count: int32, >= 0.
        digits: int32, one for each decimal of the fraction, before which stands the whole part (0 or 1).
    """
    # floor((d1 + (d2 + ...)/10 )/10 * count), from the last digit to the first: floors nest. By tens and ones, since
    # ten times a count does not fit.
    tens, ones = count // 10, count % 10
    share = count * 0
    for place in range(digits.shape[0] - 1, 0, -1):
        digit = digits[place]
        share = digit * tens + share // 10 + (digit * ones + share % 10) // 10
    return digits[0] * count + share


def mean_scores(scores: list[Array], masks: list[Array], *, xp: Namespace) -> Array:
    """The mean score of each layer's active connections, on a scale common to all, in whole numbers.

    Scores are cut to 16 bits below the largest; from there the mean is exact, and cut to 20 bits, or with more than
    128 layers to so many fewer that all add up to less than `MOST`. Infinities count 0.

    Args:
        scores: flat floats of each layer, >= 0, without NaN.
        masks: flat, of the same sizes.

    Returns:
        Flat int32, one for each layer, below 2**20.
    """
    finite = [_finite(xp.widen(values), mask, xp) for values, mask in zip(scores, masks, strict=True)]
    largest = xp.kth_largest(xp.concat([_largest(values, xp) for values in finite]), 1)
    scale = _scale(largest, xp)
    more = _scale(largest * scale, xp)  # the smallest floats take two powers of two
    means = [_mean(xp.integers(values * scale * more), mask, xp) for values, mask in zip(finite, masks, strict=True)]
    return xp.shift_right(xp.concat(means), max((len(means) - 1).bit_length() - _LAYER_BITS, 0))


def _finite(scores: Array, mask: Array, xp: Namespace) -> Array:
    scores = magnitude(scores, xp=xp)
    return xp.where(mask & (scores < math.inf), scores, xp.zeros_like(scores))


def _largest(scores: Array, xp: Namespace) -> Array:
    return xp.reshape(xp.kth_largest(scores, 1), (1,))


def _scale(largest: Array, xp: Namespace) -> Array:
    """The power of two that brings ``largest`` into [2**15, 2**16), as far as powers of two go."""
    scale = xp.full_like(largest, 1)
    powers = [512, 256, 128] if xp.smallest_normal(largest) < 1e-300 else []
    for power in [*powers, 64, 32, 16, 8, 4, 2, 1]:
        factor = 2.0**-power
        scale = xp.where(largest * scale >= 2.0 ** (_MEAN_BITS - 1 + power), scale * factor, scale)
    for power in [*powers, 64, 32, 16, 8, 4, 2, 1]:
        factor = 2.0**power
        scale = xp.where(largest * scale < 2.0 ** (_MEAN_BITS - power), scale * factor, scale)
    return scale


def _mean(numbers: Array, mask: Array, xp: Namespace) -> Array:
    """The mean of integers below 2**16 with 4 binary places, from the count of each of their bits."""
    count = xp.count(mask)
    count = xp.where(count == 0, count + 1, count)
    mean, rest = count * 0, count * 0
    for bit in range(_MEAN_BITS - 1, -_MORE_BITS - 1, -1):
        ones = xp.count(xp.shift_right(numbers, bit) & 1) if bit >= 0 else count * 0
        rest = rest * 2 + ones
        mean = mean * 2 + rest // count
        rest = rest % count
    return mean
