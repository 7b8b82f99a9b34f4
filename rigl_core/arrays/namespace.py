"""The few array operations the traced code is written in, and their NumPy version.

`topology`, `criteria`, `random` and what stands on them are written once, over an explicit namespace ``xp`` with
exactly these names. Each backend gives its own; the names and meanings follow the Python array API where it
has them. Arrays are flat, or have two axes where connections are chosen in groups. Operators
(``& | ~ > >= == + - * // % ^``) and slices are the arrays' own; a Python number beside an array takes the array's
dtype, so that 2.0**-512 beside float64 is not 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

Array = Any
"""An array of the backend, of any floating dtype, bool (masks) or int32 (counts, random scores)."""


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
        """How many are true along the last axis, which stays with size 1, as int32; of int32 numbers, their sum."""

    def cumulative_count(self, mask: Array, /) -> Array:
        """The same up to and including each position of the last axis."""

    def smallest_normal(self, x: Array, /) -> float:
        """The smallest positive normal number of the array's dtype."""

    def shift_right(self, x: Array, bits: int, /) -> Array:
        """Arithmetic shift of int32 values."""

    def kth_largest(self, scores: Array, k: Any, /) -> Array:
        """The k-th largest score along the last axis, which stays with size 1.

        The largest for k < 1; anything for no scores at all. k is a number, or an array of one.
        """

    def reshape(self, x: Array, shape: tuple[int, ...], /) -> Array:
        """The same numbers in C order, in another shape; a -1 stands for what is left."""

    def permute(self, x: Array, axes: tuple[int, ...], /) -> Array:
        """The axes in another order."""

    def concat(self, arrays: Sequence[Array], /) -> Array:
        """Flat arrays of one dtype, one after the other."""

    def widen(self, x: Array, /) -> Array:
        """16-bit floats as float32; others as they are."""

    def cast(self, x: Array, like: Array, /) -> Array:
        """Numbers in the dtype of ``like``, rounded to the nearest; integers exactly while they fit."""

    def integers(self, x: Array, /) -> Array:
        """Whole numbers as int32: floats from 0 to below 2**31 without their fraction, or what is true as 1."""


class HostNamespace(Namespace, Protocol):
    """A namespace whose arrays NumPy can work on where they lie. Nobody must offer this; it makes updates fast.

    Nor must they offer ``both(x, y)``: ``x & y`` of two masks, where the operator itself is slow in threads.
    """

    def on_host(self, choose: Callable[..., np.ndarray[Any, Any]], /, *arrays: Array) -> Array | None:
        """What a function of NumPy arrays makes of these arrays, at a cost below that of copying them.

        Args:
            choose: maps NumPy arrays, and the numbers among ``arrays``, to a flat bool array as long as the first.
            arrays: flat arrays of the backend, and counts.

        Returns:
            The bool array as one of the backend; None where NumPy cannot go: on a GPU, under a compiler.
        """


@functools.cache
def _smallest_normal(dtype: np.dtype[Any]) -> float:
    # bfloat16, which other libraries teach NumPy, has the exponents of float32.
    return float(np.finfo(np.float32 if dtype.name == "bfloat16" else dtype).smallest_normal)


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
        return np.sum(mask, axis=-1, keepdims=True, dtype=np.int32)

    @staticmethod
    def cumulative_count(mask: Array, /) -> Array:
        return np.cumsum(mask, axis=-1, dtype=np.int32)

    @staticmethod
    def smallest_normal(x: Array, /) -> float:
        return _smallest_normal(x.dtype)

    @staticmethod
    def kth_largest(scores: Array, k: Any, /) -> Array:
        size = scores.shape[-1]
        if size == 0:
            return np.zeros((*scores.shape[:-1], 1), scores.dtype)
        position = size - max(int(np.asarray(k).reshape(())), 1)
        return np.partition(scores, position)[..., position : position + 1]

    @staticmethod
    def reshape(x: Array, shape: tuple[int, ...], /) -> Array:
        return np.reshape(x, shape)

    @staticmethod
    def permute(x: Array, axes: tuple[int, ...], /) -> Array:
        return np.transpose(x, axes)

    @staticmethod
    def concat(arrays: Sequence[Array], /) -> Array:
        return np.concatenate(arrays)

    @staticmethod
    def widen(x: Array, /) -> Array:
        return x.astype(np.float32) if x.dtype.itemsize == 2 else x

    @staticmethod
    def cast(x: Array, like: Array, /) -> Array:
        return x.astype(like.dtype)

    @staticmethod
    def integers(x: Array, /) -> Array:
        return x.astype(np.int32)

    @staticmethod
    def on_host(choose: Callable[..., np.ndarray[Any, Any]], /, *arrays: Array) -> Array | None:
        return choose(*arrays)


numpy_namespace: HostNamespace = NumPyNamespace()
