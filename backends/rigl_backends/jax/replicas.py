"""Copies of a mask on several devices, compared by their digests.

JAX takes the copies of a replicated array for equal. Under ``shard_map(..., check_vma=False)``, where each device may
have its own gradient, and where processes compute different numbers, they need not be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.experimental import multihost_utils

from rigl_backends.jax import namespace
from rigl_backends.jax.trees import is_traced
from rigl_backends.jax.whole import flat_indices
from rigl_core.adapter import random_scores

_KEY = (0x1B873593, 0x2545F491)
Digests = npt.NDArray[np.int32]


def compare_copies(masks: Mapping[str, Any], *, over_processes: bool) -> None:
    """Refuse masks whose copies differ.

    Args:
        masks: by layer name; those of active weights are left out.
        over_processes: whether to compare with the copies of other processes, which then do the same.

    Raises:
        ValueError: naming the layers.
    """
    copied = {name: mask for name, mask in masks.items() if isinstance(mask, Array) and _has_copies(mask)}
    if not copied:
        return
    digests = np.concatenate([_digests(mask) for mask in copied.values()])
    if over_processes:
        of_processes: Digests = np.asarray(multihost_utils.process_allgather(digests))
        digests = np.add.reduce(of_processes)
    ends = np.cumsum([len(mask.sharding.device_set) for mask in copied.values()])[:-1]
    own = zip(copied.items(), np.split(digests, ends), strict=True)
    different = [name for (name, mask), of_devices in own if _differ(mask, of_devices)]
    if different:
        raise ValueError(
            f"opt_state holds masks whose copies differ between devices, of {', '.join(map(repr, different))}: all "
            "devices must give update the same gradients and parameters. Average the gradients over the devices "
            "(jax.lax.pmean) before update, and go on from a state in which the copies are equal."
        )


def _has_copies(mask: Array) -> bool:
    if is_traced(mask) or mask.ndim == 0 or len(mask.sharding.device_set) == 1:
        return False
    places = mask.sharding.devices_indices_map(mask.shape)
    return len({str(place) for place in places.values()}) < len(places)


def _digests(mask: Array) -> Digests:
    """The digest of each device's shard, and 1, in the order of `_devices`; two zeros for those of other processes."""
    own: Digests = np.zeros((len(mask.sharding.device_set), 2), np.int32)
    row = {device: i for i, device in enumerate(_devices(mask))}
    found = {row[shard.device]: _digest(shard.data) for shard in mask.addressable_shards}
    for i, digest in found.items():
        own[i] = int(digest), 1
    return own


@jax.jit
def _digest(mask: Array) -> Array:
    """An int32 that two different masks share once in four billion times: the sum of random numbers of true entries."""
    numbers = random_scores(_KEY, flat_indices(mask), xp=namespace)
    return jnp.sum(jnp.where(mask, numbers, 0), dtype=jnp.int32)


def _differ(mask: Array, digests: Digests) -> bool:
    """Whether devices that hold the same part of a mask have different digests of it."""
    places = mask.sharding.devices_indices_map(mask.shape)
    found: dict[str, set[int]] = {}
    for device, (digest, known) in zip(_devices(mask), digests.tolist(), strict=True):
        if known:
            found.setdefault(str(places[device]), set()).add(digest)
    return any(len(own) > 1 for own in found.values())


def _devices(mask: Array) -> list[Any]:
    return sorted(mask.sharding.device_set, key=lambda device: device.id)
