"""Random scores that are a pure function of (seed, layer name, update number, flat index).

They have the same bits in every framework, on every device and in every process: they come from a counter-based hash in
int32 arithmetic, which overflows in the same way everywhere. The host makes one key for each layer and update; traced
code only mixes the key with the flat index.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import numpy_namespace
from rigl_core.arrays.namespace import Array, Namespace
from rigl_core.arrays.topology import top_k_mask

INITIAL = -1
"""The update number in the random key of an initial mask."""


def random_key(seed: int, layer: str, update: int) -> tuple[int, int]:
    """Two int32 keys for one layer at one update.

    Args:
        seed: the recipe's seed, any integer.
        layer: the layer's name.
        update: the update's number, from 0; or `INITIAL` for the initial mask.
    """
    # The length of the name makes sure that two different inputs never give the same message. Python's own hash()
    # would differ between processes.
    message = f"{seed}:{update}:{len(layer)}:{layer}".encode()
    first, second = np.frombuffer(blake2b(message, digest_size=8).digest(), dtype="<i4")
    return int(first), int(second)


def random_scores(key: tuple[Array, Array], indices: Array, *, xp: Namespace) -> Array:
    """One uniform score in [0, 2**31) for each index.

    Args:
        key: two int32 values from `random_key` (Python integers or int32 scalars).
        indices: flat int32 array of flat indices: all of a layer, or some of them.

    Returns:
        Flat int32 array.
    """
    mixed = _mix(indices ^ key[0], xp) ^ key[1]
    return _mix(mixed, xp) & 0x7FFFFFFF


def _mix(x: Array, xp: Namespace) -> Array:
    """The finalizer of MurmurHash3 (Appleby, public domain), a bijection of 32 bits, in int32 arithmetic."""
    x = x ^ _shift_right_logical(x, 16, xp)
    x = x * -2048144789  # 0x85EBCA6B
    x = x ^ _shift_right_logical(x, 13, xp)
    x = x * -1028477387  # 0xC2B2AE35
    return x ^ _shift_right_logical(x, 16, xp)


def _shift_right_logical(x: Array, bits: int, xp: Namespace) -> Array:
    return xp.bitwise_right_shift(x, bits) & ((1 << (32 - bits)) - 1)


def random_mask(seed: int, layer: str, size: int, active: int) -> npt.NDArray[np.bool_]:
    """The random initial mask of one layer: a flat bool array with exactly ``active`` of ``size`` true."""
    indices = np.arange(size, dtype=np.int32)
    scores = random_scores(random_key(seed, layer, INITIAL), indices, xp=numpy_namespace)
    mask: npt.NDArray[np.bool_] = top_k_mask(scores, active, xp=numpy_namespace)
    return mask


def random_key_table(seed: int, layers: Sequence[str], updates: int) -> npt.NDArray[np.int32]:
    """The keys of every update, for traced code that can only index a table.

    Returns:
        int32 array (updates, layers, 2).
    """
    keys = [[random_key(seed, layer, update) for layer in layers] for update in range(updates)]
    return np.array(keys, np.int32).reshape(updates, len(layers), 2)
