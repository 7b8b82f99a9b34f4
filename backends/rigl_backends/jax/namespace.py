"""The core's array operations, in JAX; see `rigl_core.adapter.Namespace`.

They work on arrays and on tracers, with counts that may be traced, and choose along the last axis: of flat arrays, or
in groups. `rigl_backends.jax.whole` has them for layers in their own shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.buffer_callback import buffer_callback

from rigl_backends.jax.trees import Tree, is_traced, spec, varying
from rigl_core.adapter import FloatInfo

int32 = jnp.int32
on_host = None
best_of = None
first = None
total = None

abs = jnp.abs
where = jnp.where
logical_and = jnp.logical_and
zeros_like = jnp.zeros_like
full_like = jnp.full_like
sum = jnp.sum
cumulative_sum = jnp.cumulative_sum
astype = jnp.astype
bitwise_right_shift = jnp.bitwise_right_shift
reshape = jnp.reshape
permute_dims = jnp.permute_dims
concat = jnp.concat


@functools.cache
def finfo(dtype: Any, /) -> FloatInfo:
    return FloatInfo(float(jnp.finfo(dtype).smallest_normal))  # type: ignore[no-untyped-call]


def widen(x: Array, /) -> Array:
    return x.astype(jnp.float32) if x.dtype.itemsize == 2 else x


def kth_largest(scores: Array, k: Any, /) -> Array:
    return kth_over((-1,), scores, k)


def kth_over(axes: tuple[int, ...], scores: Array, k: Any, /) -> Array:
    """The k-th largest score over these axes, which stay with size 1."""
    if scores.size == 0:
        return jnp.zeros(_reduced(scores.shape, axes), scores.dtype)
    kth: Array = _kth_largest(axes, scores, jnp.asarray(k, jnp.int32).reshape(()))
    return kth


def is_on_host(tree: Tree) -> bool:
    """Whether NumPy can read all numbers where they are: they are known, and each array is on one device."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Array)]
    return not is_traced(arrays) and all(
        len(array.sharding.device_set) == 1 and array.is_fully_addressable for array in arrays
    )


def call_on_host(choose: Callable[..., Any], shape: Sequence[int], /, *arrays: Tree) -> Array | None:
    """Apply a function of NumPy arrays to these arrays, without a copy of them.

    Args:
        choose: gives bools.
        shape: of what it gives.
        *arrays: trees of arrays, whose derivatives count as 0.

    Returns:
        A bool array; None where NumPy cannot go: on other devices than CPUs, and where arrays may be shards of
        several devices, which a callback would gather.
    """
    if jax.default_backend() != "cpu":
        return None
    if is_on_host(arrays):  # a callback would be compiled at every call
        return jnp.asarray(choose(*jax.tree.map(np.asarray, arrays)))
    if jax.device_count() > 1:
        return None

    def write(_: Any, chosen: Any, *given: Any) -> None:
        np.copyto(np.asarray(chosen), choose(*jax.tree.map(np.asarray, given)))

    called: Array = buffer_callback(write, spec(shape, jnp.bool_), vmap_method="sequential")(
        *jax.tree.map(lax.stop_gradient, arrays)
    )
    return varying(called, arrays)


@functools.partial(jax.jit, static_argnums=0)
def _kth_largest(axes: tuple[int, ...], scores: Array, k: Array) -> Array:
    """Bisection, bit by bit from the highest: the largest key that at least ``k`` scores reach.

    ``lax.top_k`` needs a static k, and sorting is some twenty times slower on CPU.
    """
    keys = _sortable(scores)
    bits = 8 * keys.dtype.itemsize

    def set_bit(i: Array, key: Array) -> Array:
        higher = key | (jnp.ones((), keys.dtype) << (bits - 1 - i).astype(keys.dtype))
        reached = jnp.sum(keys >= higher, axis=axes, keepdims=True, dtype=jnp.int32)
        return jnp.where(reached >= jnp.maximum(k, 1), higher, key)

    lowest = varying(jnp.zeros(_reduced(keys.shape, axes), keys.dtype), keys, k)
    return _from_sortable(lax.fori_loop(0, bits, set_bit, lowest), scores.dtype)


def _reduced(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with size 1 in these axes."""
    own = {axis % len(shape) for axis in axes}
    return tuple(1 if axis in own else size for axis, size in enumerate(shape))


def _sortable(x: Array) -> Array:
    """Unsigned integers in the order of the values: the sign bit flipped, and all bits of negative floats."""
    sign = _sign_bit(x.dtype)
    bits = lax.bitcast_convert_type(x, sign.dtype)
    return jnp.where(bits >= sign, ~bits, bits ^ sign) if jnp.issubdtype(x.dtype, jnp.floating) else bits ^ sign


def _from_sortable(key: Array, dtype: Any) -> Array:
    sign = _sign_bit(dtype)
    bits = jnp.where(key >= sign, key ^ sign, ~key) if jnp.issubdtype(dtype, jnp.floating) else key ^ sign
    return lax.bitcast_convert_type(bits, dtype)


def _sign_bit(dtype: Any) -> Array:
    """The highest bit, in the unsigned dtype of the same size."""
    bits = 8 * np.dtype(dtype).itemsize
    return jnp.asarray(np.array(1 << (bits - 1), f"uint{bits}"))
