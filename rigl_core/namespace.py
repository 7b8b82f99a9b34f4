"""The few array operations the traced code is written in, and their NumPy version.

`topology`, `criteria` and `random` are written once, over an explicit namespace ``xp`` with exactly
these names. Each backend gives its own; the names and meanings follow the Python array API where it
has them. Arrays are flat. Operators (``& | ~ > >= == + - * ^``) are the arrays' own.
"""

from __future__ import annotations

from collections.abc import Callable
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


class HostNamespace(Namespace, Protocol):
    """A namespace whose arrays NumPy can work on where they lie. Nobody must offer this; it makes updates fast."""

    def on_host(self, choose: Callable[..., np.ndarray[Any, Any]], /, *arrays: Array) -> Array | None:
        """What a function of NumPy arrays makes of these arrays, at a cost below that of copying them.

        Args:
            choose: maps NumPy arrays, and the numbers among ``arrays``, to a flat bool array as long as the first.
            arrays: flat arrays of the backend, and counts.

        Returns:
            The bool array as one of the backend; None where NumPy cannot go: on a GPU, under a compiler.
        """


class NumPyNamespace:
    """The NumPy version, which is also the reference for the others."""

    abs = staticmethod(np.abs)
    full_like = staticmethod(np.full_like)
    shift_right = staticmethod(np.right_shift)

    @staticmethod
    def where(condition: Array, x: Array, y: Array, /) -> Array:
        return np.where(condition, x, y)

    @staticmethod
    def zeros_like(x: Array, /) -> Array:
        return np.zeros_like(x)

    @staticmethod
    def count(mask: Array, /) -> Array:
        return np.count_nonzero(mask)

    @staticmethod
    def cumulative_count(mask: Array, /) -> Array:
        return np.cumsum(mask, dtype=np.int32)

    @staticmethod
    def smallest_normal(x: Array, /) -> float:
        # bfloat16, which other libraries teach NumPy, has the exponents of float32.
        return float(np.finfo(np.float32 if x.dtype.name == "bfloat16" else x.dtype).smallest_normal)

    @staticmethod
    def kth_largest(scores: Array, k: Any, /) -> Array:
        if scores.size == 0:
            return scores.dtype.type(0)
        position = scores.size - max(int(k), 1)
        return np.partition(scores, position)[position]

    @staticmethod
    def on_host(choose: Callable[..., np.ndarray[Any, Any]], /, *arrays: Array) -> Array | None:
        return choose(*arrays)


numpy_namespace: HostNamespace = NumPyNamespace()
