"""The array operations of the core, in the Python array API standard and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import array_api_strict as xp

from rigl_core.adapter import Namespace

StandardArray = Any  # the standard gives its arrays no type


def _sum(x: StandardArray, /, *, axis: int, dtype: Any, keepdims: bool) -> StandardArray:
    return xp.sum(xp.astype(x, dtype), axis=axis, dtype=dtype, keepdims=keepdims)


def _cumulative_sum(x: StandardArray, /, *, axis: int, dtype: Any) -> StandardArray:
    return xp.cumulative_sum(xp.astype(x, dtype), axis=axis, dtype=dtype)


def _kth_largest(scores: StandardArray, k: StandardArray | int, /) -> StandardArray:
    size = scores.shape[-1]
    if size == 0:
        return xp.zeros((*scores.shape[:-1], 1), dtype=scores.dtype, device=scores.device)
    position = xp.maximum(xp.asarray(k, dtype=xp.int32, device=scores.device), 1) - 1
    descending = xp.sort(scores, axis=-1, descending=True)
    return xp.take(descending, xp.reshape(position, (1,)), axis=-1)


_BEYOND = {
    "on_host": None,
    "best_of": None,
    "first": None,
    "total": None,
    "sum": _sum,  # of bools too
    "cumulative_sum": _cumulative_sum,
    "widen": lambda x, /: x,  # the standard has no 16-bit floats
    "kth_largest": _kth_largest,
}
array_api_namespace: Namespace = SimpleNamespace(**{**vars(xp), **_BEYOND})
"""The library itself, with the operations that the core needs beyond the standard."""
