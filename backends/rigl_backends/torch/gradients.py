"""The gradients of all parameters that an optimizer holds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from rigl_backends.torch.host import numpy_shares
from rigl_core.step.selection import all_finite


def are_finite(optimizer: Optimizer) -> bool:
    """Whether all gradients are, a dense parameter's too: clipping spreads what is wrong with one over the others."""
    overflow = getattr(optimizer, "found_inf", None)  # a gradient scaler's finding, for fused optimizers
    gradients = [_values(gradient).detach() for _, gradient in held(optimizer)]
    on_host = [gradient.numpy() for gradient in gradients if _numpy_knows(gradient)]
    flags = [_is_finite(gradient) for gradient in gradients if not _numpy_knows(gradient)]
    return all_finite(on_host) and all(map(bool, flags)) and not (overflow is not None and overflow.item())


def hide(optimizer: Optimizer) -> list[tuple[Tensor, Tensor]]:
    """Take the gradients away: without them the optimizer's step is empty, no parameter moves, no state advances.

    Returns:
        What `show` needs to give them back.
    """
    hidden = held(optimizer)
    for param, _ in hidden:
        param.grad = None
    return hidden


def show(hidden: list[tuple[Tensor, Tensor]]) -> None:
    """Give gradients back to their parameters."""
    for param, gradient in hidden:
        param.grad = gradient


def held(optimizer: Optimizer) -> list[tuple[Tensor, Tensor]]:
    """All parameters that have a gradient, with it."""
    params = (param for group in optimizer.param_groups for param in group["params"])
    return [(param, param.grad) for param in params if param.grad is not None]


def _values(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, which a dense embedding may hold as a sparse tensor."""
    return gradient.coalesce().values() if gradient.layout == torch.sparse_coo else gradient


def _numpy_knows(values: Tensor) -> bool:
    return numpy_shares(values) and values.dtype in (torch.float16, torch.float32, torch.float64)


def _is_finite(values: Tensor) -> Tensor:
    """Whether all numbers are; their smallest and largest tell, a NaN going before both."""
    if not values.numel():
        return torch.ones((), dtype=torch.bool)
    real = torch.view_as_real(values) if values.is_complex() else values
    return torch.isfinite(torch.stack(torch.aminmax(real))).all()
