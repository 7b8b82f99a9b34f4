"""Whole steps of trainings in torch, with active weights alone, with masks, or dense; and an update of one layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import rigl_backends.numpy
import rigl_backends.torch
from rigl_core import RigL, SparsityWarning, Uniform, UpdateSchedule

Act = Callable[[], object]
NEVER = UpdateSchedule(begin=10**6, end=10**7)


class Training:
    """A training step of a network, forward, backward and optimizer, in which no update is due.

    Args:
        network: ``"mlp"`` (784-size-size-10) or ``"transformer"`` (a block of width ``size`` on sequences of 128).
        size: as the network reads it.
        batch: samples, or sequences.
        density: of the hidden layers of the MLP, or of the feed-forward layers of the block.
        threads: of torch and the kernels.
    """

    def __init__(self, network: str, size: int, batch: int, density: float, threads: int) -> None:
        torch.set_num_threads(threads)
        self.network, self.size, self.batch, self.density = network, size, batch, density

    def step(self, storage: str | None) -> Act:
        """A step; ``storage`` is None for the dense training."""
        torch.manual_seed(0)
        size = self.size
        if self.network == "mlp":
            layers = nn.Linear(784, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 10)
            model: nn.Module = nn.Sequential(*layers)
            x, labels, others = torch.randn(self.batch, 784), torch.randint(0, 10, (self.batch,)), ["4.*"]
        else:
            model = nn.TransformerEncoderLayer(size, 8, 4 * size, dropout=0.0, batch_first=True)
            x, labels, others = torch.randn(self.batch, 128, size), None, ["self_attn.*"]
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        if storage is not None:
            recipe = RigL(1 - self.density, schedule=NEVER, distribution=Uniform(first_dense=False))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SparsityWarning)
                rigl_backends.torch.sparsify(model, optimizer, recipe, exclude=others, storage=storage)  # type: ignore[arg-type]

        def act() -> None:
            optimizer.zero_grad()
            out = model(x)
            loss = out.square().mean() if labels is None else functional.cross_entropy(out, labels)
            loss.backward()
            optimizer.step()

        return act


def update(size: int, batch: int, density: float, threads: int) -> Act:
    """An update of one layer in NumPy, through ``optimizer.step``: it reads the dense gradient of a batch."""
    random = np.random.default_rng(0)
    params = {"fc": random.standard_normal((size, size), np.float32)}
    optimizer = rigl_backends.numpy.SGD(params, 0.1)
    every_step = UpdateSchedule(end=10**6, every=1)
    recipe = RigL(1 - density, schedule=every_step, distribution=Uniform(first_dense=False))
    sparse = rigl_backends.numpy.sparsify(params, optimizer, recipe, axes={"fc": ((1,), (0,))}, storage="active")
    linear = sparse.linear["fc"]
    linear.threads = threads
    x, dy = (random.standard_normal((batch, size), np.float32) for _ in range(2))
    gradient: Any = linear.backward(x, dy)[1]
    return lambda: optimizer.step({"fc": gradient})


def dense_product(size: int, batch: int, density: float, threads: int) -> Act:
    """One dense product of the same layer."""
    torch.set_num_threads(threads)
    return partial(torch.mm, torch.randn(batch, size), torch.randn(size, size).t())


def make(contender: str, baseline: str, layer: Mapping[str, Any]) -> tuple[Act, Act] | None:
    """What is measured, and what it is compared with; None for what is no whole step."""
    if contender == "update":
        return update(**layer), dense_product(**layer)
    network, _, storage = contender.partition(" ")
    if network not in ("mlp", "transformer"):
        return None
    training = Training(network, **layer)
    return training.step(storage), training.step(None)
