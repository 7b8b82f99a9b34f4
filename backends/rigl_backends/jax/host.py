"""Calls of NumPy from compiled programs, on arrays where they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.buffer_callback import buffer_callback

from rigl_backends.jax.trees import Tree, is_traced


def numpy_reads(tree: Tree) -> bool:
    """Whether all numbers are known, and known to this process."""
    return not is_traced(tree) and all(getattr(leaf, "is_fully_addressable", True) for leaf in jax.tree.leaves(tree))


def like_layer(tree: Any, weight: Array) -> Any:
    """NumPy's arrays as arrays of JAX; if the weight lies on several devices, what has its shape lies as it does."""

    def place(array: np.ndarray[Any, Any]) -> Array:
        spread = sharding is not None and len(sharding.device_set) > 1 and array.shape == weight.shape
        return jax.device_put(array, sharding) if spread else jnp.asarray(array)

    sharding = getattr(weight, "sharding", None)  # parameters may be arrays of NumPy
    return jax.tree.map(place, tree)


def call_on_host(choose: Callable[..., Any], shape: Sequence[int], /, *arrays: Array) -> Array | None:
    """What a function of NumPy arrays makes of these arrays, without a copy of them.

    Args:
        choose: gives bools.
        shape: of what it gives.
        arrays: of which no derivative is asked.

    Returns:
        A bool array; None where NumPy cannot go, which is on other devices than CPUs.
    """
    if jax.default_backend() != "cpu":
        return None
    if numpy_reads(arrays):  # a callback would be compiled at every call
        return jnp.asarray(choose(*map(np.asarray, arrays)))

    def write(_: Any, chosen: Any, *given: Any) -> None:
        np.copyto(np.asarray(chosen), choose(*map(np.asarray, given)))

    like = jax.ShapeDtypeStruct(shape, jnp.bool_)  # type: ignore[no-untyped-call]
    called: Array = buffer_callback(write, like, vmap_method="sequential")(*map(lax.stop_gradient, arrays))
    return called
