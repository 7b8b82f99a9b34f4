"""A layer of a trained network that is used: our steps, torch's CSR matrices, and a dense Linear module by torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

import rigl_backends.torch
from rigl_core.serving import Chain, Linear

Act = Callable[[], object]


class Inference:
    """A Linear module of as many outputs as inputs, of which a share of the weights is not 0.

    Args:
        size: its inputs.
        batch: samples.
        density: the share.
        threads: of torch and the kernels.
    """

    def __init__(self, size: int, batch: int, density: float, threads: int) -> None:
        torch.set_num_threads(threads)
        self.module, self.threads = nn.Linear(size, size).eval().requires_grad_(False), threads
        self.module.weight *= torch.rand(size, size) < density
        self.x = torch.randn(batch, size)

    def dense(self) -> Act:
        """By torch, with all weights."""
        return lambda: self.module(self.x)

    def csr(self) -> Act:
        """By torch, as a CSR matrix."""
        module = rigl_backends.torch.to_csr(self.module)
        return lambda: module(self.x)

    def served(self) -> Act:
        """By `rigl_core.serving`."""
        step = Linear.of(self.module.weight.numpy(), self.module.bias.numpy())
        network, x = Chain([step], threads=self.threads), np.asarray(self.x)
        return lambda: network(x)


def make(contender: str, baseline: str, layer: Mapping[str, Any]) -> tuple[Act, Act] | None:
    """What is measured, and what it is compared with; None for what is no inference."""
    if baseline != "dense inference":
        return None
    made = Inference(**layer)
    return {"serving": made.served, "CSR module": made.csr}[contender](), made.dense()
