"""Steps in PyTorch."""

from __future__ import annotations

import torch

from contenders.protocol import Train
from contenders.recipes import moving_later
from contenders.torch_models import make_model, make_optimizer, make_step
from rigl_backends.torch import sparsify
from rigl_core import Recipe


class TorchSteps:
    """See `contenders.protocol.Steps`."""

    def __init__(self, model: str, optimizer: str) -> None:
        self.dense = train(model, optimizer, None)
        self.sparse = train(model, optimizer, moving_later())


make = TorchSteps


def train(model: str, optimizer: str, recipe: Recipe | None, device: str = "cpu") -> Train:
    """See `contenders.protocol.Train`."""
    network, inputs = make_model(model)
    network, inputs = network.to(device), inputs.to(device)
    stepper = make_optimizer(optimizer, network)
    if recipe is not None:
        sparsify(network, stepper, recipe)
    step = make_step(network, inputs, stepper)

    def take(*, wait: bool = True) -> None:
        step()
        if wait and inputs.is_cuda:
            torch.cuda.synchronize(device)

    return take


def device_name(device: str) -> str:
    """The name of a device; a missing one is an error."""
    torch.empty(0, device=device)
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def peak_bytes(device: str) -> int | None:
    """The most memory that this process held on a device at a time; None where PyTorch does not count it."""
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None
