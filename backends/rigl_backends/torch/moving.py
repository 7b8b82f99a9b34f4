"""Tensors of active weights whose places change."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rigl_core.adapter import Index, Move


def write(old: Tensor, new: Tensor) -> None:
    """The new numbers in the old tensor, whatever its size was."""
    if old.shape == new.shape:
        old.detach().copy_(new)
    else:
        dtype, old.grad = old.dtype, None
        old.data = new.to(torch.float64)  # another dtype, or autograd would go on to expect the old size
        old.data = new.to(dtype)


def dense_of(values: Tensor, places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Numbers at flat indices as an array of a shape, with zeros elsewhere."""
    dense = values.new_zeros(shape)
    dense.view(-1)[places.to(values.device, torch.int64)] = values
    return dense


def positions(places: Tensor, wanted: Tensor) -> Tensor:
    """Where each wanted flat index is among some places, which have all of them in another order."""
    order = torch.argsort(places)
    return order[torch.searchsorted(places[order], wanted.to(places))]


def moved(values: Tensor, move: Move, new: Any) -> Tensor:
    """Numbers of active weights after an update; ``new`` is what new connections get, or has it in their places."""
    is_new, stays = torch.from_numpy(move.is_new), torch.from_numpy(move.stays)
    size = move.stays.size
    lines = values.detach().reshape(values.numel() // size if size else 1, size)
    after = torch.empty(lines.shape[0], move.is_new.size, dtype=values.dtype)
    after[:, ~is_new] = lines[:, stays]
    after[:, is_new] = new[is_new].to(values.dtype) if isinstance(new, Tensor) else new
    return after.reshape(-1)


def common(old: Index, new: Index) -> tuple[Any, Any]:
    """Which connections stay, in the old order; and which are new, in the new one."""
    return np.isin(old.flat(), new.flat()), ~np.isin(new.flat(), old.flat())


def is_same(one: Index, other: Index) -> bool:
    """Whether two indices have the same places."""
    return np.array_equal(one.pointers, other.pointers) and np.array_equal(one.columns, other.columns)
