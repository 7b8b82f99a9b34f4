"""The array operations of rigl-core on MLX's arrays; `rigl_core.Namespace` says what each means."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

int32 = mx.int32
on_host = None
best_of = None
first = None
total = None

abs = mx.abs
where = mx.where
logical_and = mx.logical_and
zeros_like = mx.zeros_like
full_like = mx.full_like
finfo = mx.finfo
bitwise_right_shift = mx.right_shift
reshape = mx.reshape
permute_dims = mx.transpose
concat = mx.concatenate


def sum(x: mx.array, /, *, axis: int, dtype: Any, keepdims: bool) -> mx.array:
    """MLX's own takes no dtype, so this converts first."""
    return mx.sum(x.astype(dtype), axis=axis, keepdims=keepdims)


def cumulative_sum(x: mx.array, /, *, axis: int, dtype: Any) -> mx.array:
    """MLX's own takes no dtype either."""
    return mx.cumsum(x.astype(dtype), axis=axis)


def astype(x: mx.array, dtype: Any, /) -> mx.array:
    """A method in MLX."""
    return x.astype(dtype)


def widen(x: mx.array, /) -> mx.array:
    """Both float16 and bfloat16 become float32."""
    return x.astype(mx.float32) if x.dtype.size == 2 else x


def kth_largest(scores: mx.array, k: mx.array | int, /) -> mx.array:
    """Sorts only where the data decide ``k``, which then is an array that Python never reads."""
    size = scores.shape[-1]
    if size == 0:
        return mx.zeros((*scores.shape[:-1], 1), scores.dtype)
    if isinstance(k, mx.array):
        return mx.take(mx.sort(scores), size - mx.maximum(k, 1).reshape(1), axis=-1)
    position = size - max(k, 1)
    return mx.partition(scores, position)[..., position : position + 1]
