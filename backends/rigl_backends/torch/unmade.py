"""Models on the meta device, which are made on the CPU without their dense weights ever being there."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn


def check_can_be_made(model: nn.Module, active: Collection[nn.Module]) -> None:
    """Refuse a model of which a module has no way to draw its values.

    Args:
        model: the model.
        active: modules that are to hold active weights alone.

    Raises:
        ValueError: naming the module.
    """
    for name, module in model.named_modules():
        if module not in active and any(_unmade_in(module)) and not hasattr(module, "reset_parameters"):
            raise ValueError(
                f"model has values to be made in {name or 'itself'!r}, a {type(module).__name__} without "
                "reset_parameters(): make it on the CPU before sparsify."
            )


def make_rest(module: nn.Module) -> None:
    """Make the parameters and buffers of one module, by its own initialisation; they stay the same objects."""
    if not any(_unmade_in(module)):
        return
    for param in module.parameters(recurse=False):
        if param.is_meta:
            make(param, torch.empty_like(param, device="cpu"))
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_meta:
            module.register_buffer(name, torch.empty_like(buffer, device="cpu"))
    module.reset_parameters()  # type: ignore[operator]


def make(param: nn.Parameter, values: Tensor) -> None:
    """Give a parameter without values these; it stays the same object, for the optimizer."""
    made = nn.Parameter(values, requires_grad=param.requires_grad)
    torch.utils.swap_tensors(param, made)  # type: ignore[no-untyped-call]


def _unmade_in(module: nn.Module) -> Iterator[bool]:
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        yield tensor.is_meta
