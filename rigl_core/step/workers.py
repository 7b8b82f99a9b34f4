"""Work on large arrays in the host's memory, in two threads and part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from rigl_core.arrays.numpy_namespace import finfo

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_T = TypeVar("_T")
_R = TypeVar("_R")
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]

PART = 1 << 17
"""The numbers in a part: it fits in a processor's cache, and keeps NumPy busy longer than Python."""
LARGE = 1 << 18
"""The numbers that an item needs to get a thread."""


def two_at_a_time(work: Callable[[_T], _R], items: Iterable[_T], size_of: Callable[[_T], int]) -> list[_R]:
    """The results of ``work`` for all items, from the largest item to the smallest.

    Two threads work on large items; then the caller's thread works on the others. NumPy releases Python's lock while it
    works on an array, but with small arrays the threads would mostly wait for the lock. More threads would compete for
    the same memory and hold more temporary arrays. The threads end with the call.

    Args:
        work: works on one item.
        items: the items.
        size_of: the number of numbers in an item.
    """
    ordered = sorted(items, key=size_of, reverse=True)
    large = [item for item in ordered if size_of(item) >= LARGE]
    results: list[_R] = []
    if large:
        with _two_threads() as threads:
            results += threads.map(work, large)  # raises the errors of the threads as well
    return results + [work(item) for item in ordered[len(large) :]]


def _two_threads() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # this import takes a fifth of the time of importing NumPy

    return ThreadPoolExecutor(2)


def parts_of(size: int, length: int = PART) -> list[slice]:
    """Slices that cut a flat array of this size into parts of this length; the last one may be shorter."""
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


def all_finite(arrays: Iterable[Values]) -> bool:
    """Whether no number is NaN or infinite."""

    def finite(array: Values) -> bool:
        flat = array.reshape(-1)
        return all(np.isfinite(flat[part]).all() for part in parts_of(flat.size))

    return all(two_at_a_time(finite, arrays, np.size))


def any_normal(values: Values, mask: Mask, *, outside: bool) -> bool:
    """Whether any number has a magnitude that counts: it is neither 0, nor subnormal, nor NaN.

    Args:
        values: flat array, or an object that gives NumPy arrays when it is indexed with a part.
        mask: flat bool array as long as the values.
        outside: whether the numbers outside the mask count, too.
    """

    def normal(part: slice) -> Mask:
        own = values[part]
        found: Mask = np.abs(own) >= finfo(own.dtype).smallest_normal
        return found if outside else found & mask[part]

    return any(normal(part).any() for part in parts_of(mask.size))


def any_outside(arrays: Iterable[Values], masks: Iterable[Mask]) -> bool:
    """Whether any number outside its array's mask is not 0.

    Args:
        arrays: arrays of any shapes.
        masks: bool arrays of the same shapes, contiguous in C order.
    """

    def outside(pair: tuple[Values, Mask]) -> bool:
        return any(part.any() for part in _outside(pair[0].reshape(-1), pair[1].reshape(-1)))

    return any(two_at_a_time(outside, zip(arrays, masks, strict=True), lambda pair: pair[0].size))


def count_outside(values: Values, mask: Mask) -> int:
    """The number of values outside a mask that are not 0; flat arrays."""
    return sum(int(np.count_nonzero(part)) for part in _outside(values, mask))


def _outside(values: Values, mask: Mask) -> Iterator[Mask]:
    """Where flat values outside a mask are not 0, part by part."""
    return ((values[part] != 0) > mask[part] for part in parts_of(mask.size))


def zero_outside(values: Values, mask: Mask) -> None:
    """Set the values outside the mask to +0, in place; those inside stay bit for bit.

    Args:
        values: floats of the mask's shape.
        mask: bool array, contiguous in C order.
    """
    if not values.flags.c_contiguous:
        np.copyto(values, 0, where=~mask)
        return
    bits = values.reshape(-1).view(f"i{values.itemsize}")
    np.multiply(bits, mask.reshape(-1).view(np.int8), out=bits)
