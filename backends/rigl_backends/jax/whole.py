"""The core's array operations on layers in their own shapes, where a choice is over all axes of an array.

Nothing here makes an array flat, or sums up to each place: XLA would gather a sharded layer on every device for it.
Each operation looks at one number alone, or counts, so devices exchange counts. On flat arrays these operations are
those of `rigl_backends.jax.namespace`. `calling_namespace` has the same, and calls NumPy where all lies in the memory
of one CPU; so does `flat_calling_namespace`, for flat arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rigl_backends.jax import namespace
from rigl_backends.jax.namespace import call_on_host, kth_over
from rigl_backends.jax.trees import varying
from rigl_core.adapter import Namespace

_reshard: Callable[[Array, NamedSharding], Array] = jax.sharding.reshard
_EVERYWHERE: Any = PartitionSpec()  # type: ignore[no-untyped-call]
_FEW = 2**12
"""Shorter arrays are counts of layers, or so short that to gather them costs nothing."""


def flat_indices(like: Array) -> Array:
    """The int32 flat index of each place of an array, in the array's shape."""
    index = jnp.zeros(like.shape, jnp.int32)
    for axis, size in enumerate(like.shape):
        index = index * size + lax.broadcasted_iota(jnp.int32, like.shape, axis)
    return sharded_as(like, index)


def sharded_as(like: Array, array: Array) -> Array:
    """The array, sharded as ``like``, which has its shape, if that lies in an explicit mesh."""
    sharding = explicit_sharding(like)
    return array if sharding is None else _reshard(array, sharding)


def gathered(array: Array) -> Array:
    """The array, whole on each device, if it lies in an explicit mesh: there, JAX gathers nothing by itself."""
    sharding = explicit_sharding(array)
    return array if sharding is None else _reshard(array, NamedSharding(sharding.mesh, _EVERYWHERE))


def explicit_sharding(array: Array) -> NamedSharding | None:
    """The sharding in the array's type; None outside of explicit meshes."""
    sharding: NamedSharding = jax.typeof(array).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def sum(x: Array, /, *, axis: int, dtype: Any, keepdims: bool) -> Array:
    """The sum over all axes, with shape (1,)."""
    return jnp.sum(x, dtype=dtype).reshape(1)


def kth_largest(scores: Array, k: Any, /) -> Array:
    """The k-th largest score over all axes, with shape (1,)."""
    kth: Array = kth_over(tuple(range(scores.ndim)), scores, k)
    return kth.reshape(1)


def first(tied: Array, room: Array, /) -> Array:
    """The first true entries, ``room`` of them at most."""
    if tied.ndim == 1 and tied.size < _FEW:
        fits = jnp.cumulative_sum(tied, dtype=jnp.int32) <= room
    else:
        fits = flat_indices(tied) < _end_of_first(tied, room.reshape(()))
    return jnp.logical_and(tied, fits)


@jax.jit
def _end_of_first(tied: Array, room: Array) -> Array:
    """The largest index before which no more than ``room`` entries are true.

    Bisection again, and only where not all of them fit: equal scores are rare.
    """
    bits = tied.size.bit_length()  # of the highest index and one

    def bisect() -> Array:
        def set_bit(i: Array, end: Array) -> Array:
            higher = end | (jnp.ones((), jnp.int32) << (bits - 1 - i))
            before = jnp.sum(tied & (flat_indices(tied) < higher), dtype=jnp.int32)
            return jnp.where(before <= room, higher, end)

        end: Array = lax.fori_loop(0, bits, set_bit, varying(jnp.zeros((), jnp.int32), tied, room))
        return end

    def all_of_them() -> Array:
        return varying(jnp.full((), (1 << bits) - 1, jnp.int32), tied, room)

    end: Array = lax.cond(jnp.sum(tied, dtype=jnp.int32) <= room, all_of_them, bisect)
    return end


def concat(arrays: Sequence[Array], /) -> Array:
    """The arrays one after the other, flat."""
    return jnp.concat([array.reshape(-1) for array in arrays])


def _on_host(choose: Callable[..., Any], /, *arrays: Array) -> Array | None:
    """What NumPy chooses of flat arrays, in the shape of the first one."""
    shape = arrays[0].shape

    def of_shape(*given: Any) -> Any:
        return choose(*(array.reshape(-1) if np.ndim(array) > 1 else array for array in given)).reshape(shape)

    return call_on_host(of_shape, shape, *arrays)


def _namespace(name: str, **own: Any) -> Namespace:
    made = ModuleType(name, "Operations of `namespace` and of this module.")
    vars(made).update({key: value for key, value in vars(namespace).items() if not key.startswith("_")}, **own)
    return made


_WHOLE = {"sum": sum, "kth_largest": kth_largest, "first": first, "concat": concat}
whole_namespace = _namespace("whole_namespace", **_WHOLE)
calling_namespace = _namespace("calling_namespace", **_WHOLE, on_host=_on_host)
flat_calling_namespace = _namespace("flat_calling_namespace", on_host=_on_host)


def for_flat_arrays(xp: Namespace) -> Namespace:
    """The namespace for flat arrays, or groups, in place of one for arrays in their own shapes."""
    return {id(whole_namespace): namespace, id(calling_namespace): flat_calling_namespace}.get(id(xp), xp)
