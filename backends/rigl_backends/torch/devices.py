"""Tensors of one training on several devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rigl_core.arrays.connections import Connections


def on_one_device(pool: Sequence[Connections]) -> list[Connections]:
    """The connections of layers that choose together, where the first of them is."""
    device = pool[0].weight.device
    return [
        connections.with_arrays([x.to(device) if isinstance(x, Tensor) else x for x in connections.arrays])
        for connections in pool
    ]


def masks_on_host(state: Any) -> Any:
    """A saved state with its masks in the host's memory, wherever they were loaded to."""
    masks = state.get("masks") if isinstance(state, Mapping) else None
    if not isinstance(masks, Mapping):
        return state
    return {**state, "masks": {name: mask.cpu() if isinstance(mask, Tensor) else mask for name, mask in masks.items()}}
