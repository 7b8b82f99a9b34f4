"""The array operations of the core, in JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array, lax

from rigl_backends.jax.host import call_on_host
from rigl_core.arrays.namespace import HostNamespace, Namespace


class JaxNamespace:
    """See `rigl_core.arrays.namespace.Namespace`; works on arrays and on tracers, with counts that may be traced."""

    abs = staticmethod(jnp.abs)
    zeros_like = staticmethod(jnp.zeros_like)
    full_like = staticmethod(jnp.full_like)
    shift_right = staticmethod(jnp.right_shift)

    @staticmethod
    def where(condition: Array, x: Array, y: Array, /) -> Array:
        return jnp.where(condition, x, y)

    @staticmethod
    def count(mask: Array, /) -> Array:
        return jnp.sum(mask, axis=-1, keepdims=True, dtype=jnp.int32)

    @staticmethod
    def cumulative_count(mask: Array, /) -> Array:
        return jnp.cumsum(mask, axis=-1, dtype=jnp.int32)

    @staticmethod
    def smallest_normal(x: Array, /) -> float:
        return float(jnp.finfo(x.dtype).smallest_normal)  # type: ignore[no-untyped-call]

    @staticmethod
    def kth_largest(scores: Array, k: Array | int, /) -> Array:
        if scores.size == 0:
            return jnp.zeros((*scores.shape[:-1], 1), scores.dtype)
        kth: Array = _kth_largest(scores, jnp.asarray(k, jnp.int32).reshape(()))
        return kth

    @staticmethod
    def reshape(x: Array, shape: tuple[int, ...], /) -> Array:
        return jnp.reshape(x, shape)

    @staticmethod
    def permute(x: Array, axes: tuple[int, ...], /) -> Array:
        return jnp.transpose(x, axes)

    @staticmethod
    def concat(arrays: Sequence[Array], /) -> Array:
        return jnp.concatenate(arrays)

    @staticmethod
    def widen(x: Array, /) -> Array:
        return x.astype(jnp.float32) if x.dtype.itemsize == 2 else x

    @staticmethod
    def cast(x: Array, like: Array, /) -> Array:
        return x.astype(like.dtype)

    @staticmethod
    def integers(x: Array, /) -> Array:
        return x.astype(jnp.int32)


class CallingNamespace(JaxNamespace):
    """With calls of NumPy on CPUs; see `rigl_core.arrays.namespace.HostNamespace`."""

    @staticmethod
    def on_host(choose: Callable[..., npt.NDArray[np.bool_]], /, *arrays: Array) -> Array | None:
        return call_on_host(choose, arrays[0].shape, *arrays)


jax_namespace: Namespace = JaxNamespace()
calling_namespace: HostNamespace = CallingNamespace()


@jax.jit
def _kth_largest(scores: Array, k: Array) -> Array:
    """Bisection, bit by bit from the highest: the largest key that at least ``k`` scores of the last axis reach.

    ``lax.top_k`` needs a static k, and sorting is some twenty times slower on CPU.
    """
    keys = _sortable(scores)
    bits = 8 * keys.dtype.itemsize

    def set_bit(i: Array, key: Array) -> Array:
        higher = key | (jnp.ones((), keys.dtype) << (bits - 1 - i).astype(keys.dtype))
        reached = jnp.sum(keys >= higher, axis=-1, keepdims=True, dtype=jnp.int32)
        return jnp.where(reached >= jnp.maximum(k, 1), higher, key)

    lowest = jnp.zeros((*keys.shape[:-1], 1), keys.dtype)
    return _from_sortable(lax.fori_loop(0, bits, set_bit, lowest), scores.dtype)


def _sortable(x: Array) -> Array:
    """Unsigned integers in the order of the values: the sign bit flipped, and all bits of negative floats."""
    sign = _sign_bit(x.dtype)
    bits = lax.bitcast_convert_type(x, sign.dtype)
    return jnp.where(bits >= sign, ~bits, bits ^ sign) if _is_floating(x.dtype) else bits ^ sign


def _from_sortable(key: Array, dtype: Any) -> Array:
    sign = _sign_bit(dtype)
    bits = jnp.where(key >= sign, key ^ sign, ~key) if _is_floating(dtype) else key ^ sign
    return lax.bitcast_convert_type(bits, dtype)


def _sign_bit(dtype: Any) -> Array:
    """The highest bit, in the unsigned dtype of the same size."""
    bits = 8 * np.dtype(dtype).itemsize
    return jnp.asarray(np.array(1 << (bits - 1), f"uint{bits}"))


def _is_floating(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))
