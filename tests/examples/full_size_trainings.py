"""Trainings of the example at full size, small enough for tests, and two processes that train together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from tests.examples.image_files import any_checksum

WORLD = 2
SHORT = ("--epochs", "1", "--batch", "10")
"""Two steps on CIFAR-10."""
TOGETHER = ("--epochs", "2", "--batch", "8", "--checkpoint-every", "1")
PARTS = (("stopped", ("--steps", "3")), ("stopped", ()), ("whole", ()))
"""The trainings of two processes: the name of the folder, and options. The second one goes on with the first one."""


def train(network: str, data: Path, folder: Path, *options: str) -> Any:
    """Train on the CPU, with an update of the topology at each step; the training at its end."""
    from whole_program import main

    usual = ("--every", "1", "--workers", "0", "--device", "cpu", "--quiet", "--folder", str(folder))
    with any_checksum():
        return main([network, "--data", str(data), *usual, *options])


def work(rank: int, ports: list[int], data: str, folder: str) -> None:
    """One of two processes: train with the other, as torchrun starts them. Before that, one trains with workers.

    Args:
        rank: its number.
        ports: where the processes meet, one for each of three trainings.
        data: CIFAR-10's folder.
        folder: where the trainings and this process's record come.
    """
    import tests.examples.conftest  # noqa: F401  (the folder of the example)

    torch.set_num_threads(1)
    mp.set_start_method("fork", force=True)  # so workers have the operators of torchvision
    if rank == 0:
        train("wrn22-2", Path(data), Path(folder) / "with workers", *TOGETHER, "--workers", "2")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "localhost"}
    record = {}
    for port, (name, options) in zip(ports, PARTS, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        training = train("wrn22-2", Path(data), Path(folder) / name, *TOGETHER, *options)
        masks = training.sparse.masks
        record[name] = {"model": training.model.state_dict(), "masks": masks, "history": training.history}
    torch.save(record, Path(folder) / f"{rank}.pt")
