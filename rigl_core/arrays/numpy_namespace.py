"""The array operations in NumPy, the reference for other namespaces; see `rigl_core.arrays.namespace.Namespace`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rigl_core.arrays.namespace import Array, FloatInfo

int32 = np.int32
best_of = None
first = None
total = None

abs = np.abs
where = np.where
logical_and = np.logical_and
zeros_like = np.zeros_like
full_like = np.full_like
sum = np.sum
cumulative_sum = np.cumsum
bitwise_right_shift = np.right_shift
reshape = np.reshape
permute_dims = np.transpose


@functools.cache
def finfo(dtype: np.dtype[Any], /) -> FloatInfo:
    # NumPy gets bfloat16 from other libraries, and its finfo does not know it. Its exponents are those of float32.
    return FloatInfo(float(np.finfo(np.float32 if dtype.name == "bfloat16" else dtype).smallest_normal))


def astype(x: Array, dtype: Any, /) -> Array:
    return x.astype(dtype)


def concat(arrays: Sequence[Array], /) -> Array:
    return np.concatenate(arrays)


def widen(x: Array, /) -> Array:
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def kth_largest(scores: Array, k: Any, /) -> Array:
    size = scores.shape[-1]
    if size == 0:
        return np.zeros((*scores.shape[:-1], 1), scores.dtype)
    position = size - max(int(np.asarray(k).reshape(())), 1)
    return np.partition(scores, position)[..., position : position + 1]


def on_host(choose: Callable[..., Array], /, *arrays: Array) -> Array:
    return choose(*arrays)
