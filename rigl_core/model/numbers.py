"""Numbers as users write them, and exact integer counts: a budget is kept to the weight, never "about"."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from fractions import Fraction


def decimal(value: object, parameter: str) -> Fraction:
    """A number read as the decimal its user wrote: 0.9 is 9/10, not the nearest binary float.

    Raises:
        TypeError: if ``value`` is not a real number.
        ValueError: if it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{parameter} is {value!r}: it must be a number.")
    if not math.isfinite(value):
        raise ValueError(f"{parameter} is {value!r}: it must be finite.")
    return Fraction(str(value))


def check_sparsity(value: object, parameter: str = "sparsity") -> float:
    """``value`` as a float, if it is a sparsity.

    Raises:
        TypeError, ValueError: naming the parameter, if it is not a number in [0, 1).
    """
    sparsity = decimal(value, parameter)
    if not 0 <= sparsity < 1:
        raise ValueError(
            f"{parameter} is {value}: it must be in [0, 1), the share of weights that are zero (0.9 keeps one in ten)."
        )
    return float(sparsity)


def check_integer(parameter: str, value: object, least: int) -> int:
    """``value`` as an int, if it is a whole number of at least ``least`` (NumPy integers are)."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{parameter} is {value!r}: it must be a whole number.")
    number: int = value.__index__()
    if number < least:
        raise ValueError(f"{parameter} is {number}: it must be at least {least}.")
    return number


def active_count(sparsity: float, size: int) -> int:
    """round((1 - sparsity) * size) in exact arithmetic; a half goes to the even count."""
    return round((1 - decimal(sparsity, "sparsity")) * size)


def largest_remainder(shares: Sequence[Fraction], total: int) -> list[int]:
    """Integers next to the real-valued shares that sum to ``total`` exactly.

    Every share is rounded down; what is left goes to the largest fractional parts, the earlier share
    first among equals. Every count is within one of its share.

    Args:
        shares: real-valued counts, summing to ``total``.
        total: the sum of the result.

    Raises:
        ValueError: if the shares do not sum to ``total`` (to within one half).
    """
    # Over a common denominator, since sorting fractions is slow.
    unit = math.lcm(*(share.denominator for share in shares))
    parts = [share.numerator * (unit // share.denominator) for share in shares]
    if abs(sum(parts) - total * unit) * 2 >= unit:
        raise ValueError(f"shares sum to {sum(parts) / unit}, which is not the budget of {total} active weights.")
    counts = [part // unit for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda i: (-(parts[i] % unit), i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts
