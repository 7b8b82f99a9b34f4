"""The few array operations the traced code is written in, and their NumPy version.

`topology`, `criteria` and `random` are written once, over an explicit namespace ``xp`` with exactly
these names. Each backend gives its own; the names and meanings follow the Python array API where it
has them. Arrays are flat. Operators (``& | ~ > >= == + - * ^``) are the arrays' own.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = Any
"""An array of the backend: flat, of any floating dtype, bool (masks) or int32 (random scores)."""


class Namespace(Protocol):
    """What a backend offers the core."""

    def abs(self, x: Array, /) -> Array:
        """Magnitudes."""

    def where(self, condition: Array, x: Array, y: Array, /) -> Array:
        """``x`` where the condition holds, ``y`` elsewhere; all of one shape."""

    def zeros_like(self, x: Array, /) -> Array:
        """Zeros of the same shape and dtype."""

    def full_like(self, x: Array, value: int, /) -> Array:
        """A constant of the same shape and dtype."""

    def count(self, mask: Array, /) -> Array:
        """How many are true, as an int32 scalar."""

    def cumulative_count(self, mask: Array, /) -> Array:
        """How many are true up to and including each position, as int32."""

    def smallest_normal(self, x: Array, /) -> float:
        """The smallest positive normal number of the array's dtype."""

    def shift_right(self, x: Array, bits: int, /) -> Array:
        """Arithmetic shift of int32 values."""

    def kth_largest(self, scores: Array, k: Any, /) -> Array:
        """The k-th largest score as a scalar; the largest for k < 1; anything for no scores at all."""


class NumPyNamespace:
    """The NumPy version, which is also the reference for the others."""

    abs = staticmethod(np.abs)
    where = staticmethod(np.where)
    zeros_like = staticmethod(np.zeros_like)
    full_like = staticmethod(np.full_like)
    shift_right = staticmethod(np.right_shift)

    @staticmethod
    def count(mask: Array, /) -> Array:
        return np.count_nonzero(mask)

    @staticmethod
    def cumulative_count(mask: Array, /) -> Array:
        return np.cumsum(mask, dtype=np.int32)

    @staticmethod
    def smallest_normal(x: Array, /) -> float:
        return float(np.finfo(x.dtype).smallest_normal)

    @staticmethod
    def kth_largest(scores: Array, k: Any, /) -> Array:
        if scores.size == 0:
            return scores.dtype.type(0)
        position = scores.size - max(int(k), 1)
        return np.partition(scores, position)[position]


numpy_namespace: Namespace = NumPyNamespace()
