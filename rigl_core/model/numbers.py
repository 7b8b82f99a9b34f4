"""Numbers as users write them, and exact integer counts: a budget is met exactly, to the last weight."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from fractions import Fraction


def decimal(value: object, parameter: str) -> Fraction:
    """The exact decimal that the user wrote: 0.9 is 9/10, not the nearest binary float.

    Raises:
        TypeError: if ``value`` is not a real number.
        ValueError: if ``value`` is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{parameter} is {value!r}: it must be a number.")
    if not math.isfinite(value):
        raise ValueError(f"{parameter} is {value!r}: it must be finite.")
    return Fraction(str(value))


def check_sparsity(value: object, parameter: str = "sparsity") -> float:
    """``value`` as a float, after checking that it is a sparsity.

    Raises:
        TypeError, ValueError: if ``value`` is not a number in [0, 1); the message names the parameter.
    """
    sparsity = decimal(value, parameter)
    if not 0 <= sparsity < 1:
        raise ValueError(
            f"{parameter} is {value}: it must be in [0, 1), the share of weights that are zero (0.9 keeps one in ten)."
        )
    return float(sparsity)


def check_integer(parameter: str, value: object, least: int) -> int:
    """``value`` as an int, after checking that it is a whole number (of Python or NumPy) and at least ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{parameter} is {value!r}: it must be a whole number.")
    number: int = value.__index__()
    if number < least:
        raise ValueError(f"{parameter} is {number}: it must be at least {least}.")
    return number


def active_count(sparsity: float, size: int) -> int:
    """round((1 - sparsity) * size) in exact arithmetic; a half rounds to the even count."""
    return round((1 - decimal(sparsity, "sparsity")) * size)


def largest_remainder(shares: Sequence[Fraction], total: int) -> list[int]:
    """The shares rounded to integers that sum to ``total`` exactly.

    Every share is rounded down. The units that are still missing go to the shares with the largest fractional parts,
    one each; among equal parts the earlier share is first. So every count differs from its share by less than 1.

    Args:
        shares: real-valued counts that sum to ``total``.
        total: the sum of the result.

    Raises:
        ValueError: if the shares do not sum to ``total`` (to within one half).
    """
    # Bring the shares to a common denominator, since sorting fractions is slow.
    unit = math.lcm(*(share.denominator for share in shares))
    parts = [share.numerator * (unit // share.denominator) for share in shares]
    if abs(sum(parts) - total * unit) * 2 >= unit:
        raise ValueError(f"shares sum to {sum(parts) / unit}, which is not the budget of {total} active weights.")
    counts = [part // unit for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda i: (-(parts[i] % unit), i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts
