"""One process, or one of those that torchrun has started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Process:
    """This process among all.

    Attributes:
        device: what it trains on.
        rank: its number; the first one, 0, writes files and shows progress.
        world: the number of processes.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and shows."""
        return self.rank == 0

    def total(self, *counts: int) -> list[int]:
        """The sum of each count over all processes, which must all ask for it."""
        summed = torch.tensor(counts, device=self.device)
        if self.world > 1:
            dist.all_reduce(summed)
        return [int(count) for count in summed]

    def share_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's statistics of the norms, which each takes of its own images."""
        if self.world > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


@contextmanager
def joined(kind: str | None) -> Iterator[Process]:
    """Join the other processes, if torchrun has started some, and leave them at the end.

    Args:
        kind: ``"cpu"`` or ``"cuda"``; None takes a GPU if there is one.
    """
    kind = kind or ("cuda" if torch.cuda.is_available() else "cpu")
    if "RANK" not in os.environ:
        yield Process(torch.device(kind))
        return
    device = torch.device(kind, int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Process(device, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
