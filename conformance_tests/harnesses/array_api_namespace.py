"""The array operations of the core, in the Python array API standard and nothing else."""

from __future__ import annotations

from typing import Any

import array_api_strict as xp

from rigl_core import Namespace

StandardArray = Any  # the standard gives its arrays no type


class ArrayAPINamespace:
    """See `rigl_core.arrays.namespace.Namespace`; counts may be arrays too, which are never read on the host."""

    abs = staticmethod(xp.abs)
    where = staticmethod(xp.where)
    zeros_like = staticmethod(xp.zeros_like)
    full_like = staticmethod(xp.full_like)
    shift_right = staticmethod(xp.bitwise_right_shift)
    reshape = staticmethod(xp.reshape)
    permute = staticmethod(xp.permute_dims)
    concat = staticmethod(xp.concat)

    @staticmethod
    def count(mask: StandardArray, /) -> StandardArray:
        return xp.sum(xp.astype(mask, xp.int32), axis=-1, keepdims=True, dtype=xp.int32)

    @staticmethod
    def cumulative_count(mask: StandardArray, /) -> StandardArray:
        return xp.cumulative_sum(xp.astype(mask, xp.int32), axis=-1, dtype=xp.int32)

    @staticmethod
    def smallest_normal(x: StandardArray, /) -> float:
        return xp.finfo(x.dtype).smallest_normal

    @staticmethod
    def kth_largest(scores: StandardArray, k: StandardArray | int, /) -> StandardArray:
        size = scores.shape[-1]
        if size == 0:
            return xp.zeros((*scores.shape[:-1], 1), dtype=scores.dtype, device=scores.device)
        position = xp.maximum(xp.asarray(k, dtype=xp.int32, device=scores.device), 1) - 1
        descending = xp.sort(scores, axis=-1, descending=True)
        return xp.take(descending, xp.reshape(position, (1,)), axis=-1)

    @staticmethod
    def widen(x: StandardArray, /) -> StandardArray:
        return x  # the standard has no 16-bit floats

    @staticmethod
    def cast(x: StandardArray, like: StandardArray, /) -> StandardArray:
        return xp.astype(x, like.dtype)

    @staticmethod
    def integers(x: StandardArray, /) -> StandardArray:
        return xp.astype(x, xp.int32)


array_api_namespace: Namespace = ArrayAPINamespace()
