"""The array operations of rigl-core on MLX's arrays; `rigl_core.Namespace` says what each means."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx

from rigl_core import Namespace


def _kth_largest(scores: mx.array, k: mx.array | int) -> mx.array:
    size = scores.shape[-1]
    if size == 0:
        return mx.zeros((*scores.shape[:-1], 1), scores.dtype)
    if isinstance(k, mx.array):  # a count that data decide, which nobody reads in Python
        return mx.take(mx.sort(scores), size - mx.maximum(k, 1).reshape(1), axis=-1)
    position = size - max(k, 1)
    return mx.partition(scores, position)[..., position : position + 1]


mlx_namespace: Namespace = SimpleNamespace(
    abs=mx.abs,
    where=mx.where,
    zeros_like=mx.zeros_like,
    full_like=mx.full_like,
    count=lambda mask: mx.sum(mask.astype(mx.int32), axis=-1, keepdims=True),
    cumulative_count=lambda mask: mx.cumsum(mask.astype(mx.int32), axis=-1),
    smallest_normal=lambda x: mx.finfo(x.dtype).smallest_normal,
    shift_right=mx.right_shift,
    kth_largest=_kth_largest,
    reshape=mx.reshape,
    permute=mx.transpose,
    concat=mx.concatenate,
    widen=lambda x: x.astype(mx.float32) if x.dtype.size == 2 else x,
    cast=lambda x, like: x.astype(like.dtype),
    integers=lambda x: x.astype(mx.int32),
)
