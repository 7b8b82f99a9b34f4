"""The same numbers in other places in memory, for properties and for the harnesses that keep these places."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from rigl_core.testing.harness import Array


def laid_out_like(array: Array, dtype: npt.DTypeLike) -> Array:
    """A copy in a dtype, whose numbers lie in memory in the order and with the gaps of the array's."""
    steps = [stride // array.itemsize for stride in array.strides]
    length = 1 + sum((size - 1) * step for size, step in zip(array.shape, steps, strict=True) if size)
    memory = np.zeros(length, dtype)
    copy = as_strided(memory, array.shape, [step * memory.itemsize for step in steps])
    copy[...] = array
    return copy


def in_other_order(array: Array) -> Array:
    """The same numbers in Fortran order; those of four axes with the second one, the channels, last in memory."""
    if array.ndim < 4:
        return np.asfortranarray(array)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def with_gaps(array: Array) -> Array:
    """The same numbers as every third one of a larger array."""
    return np.repeat(array[..., None], 3, axis=-1)[..., 1]


LAYOUTS: Mapping[str, Callable[[Array], Array]] = {"in other order": in_other_order, "with gaps": with_gaps}
