"""The gradients of all parameters that an optimizer holds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer


def are_finite(optimizer: Optimizer) -> bool:
    """Whether all gradients are, a dense parameter's too: clipping spreads what is wrong with one over the others."""
    overflow = getattr(optimizer, "found_inf", None)  # a gradient scaler's finding, for fused optimizers
    flags = [_is_finite(_values(gradient)) for _, gradient in held(optimizer)]
    return all(bool(flag) for flag in flags) and not (overflow is not None and overflow.item())


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


def _is_finite(values: Tensor) -> Tensor:
    """Whether all numbers are; their smallest and largest tell, a NaN going before both."""
    if not values.numel():
        return torch.ones((), dtype=torch.bool)
    real = torch.view_as_real(values) if values.is_complex() else values
    return torch.isfinite(torch.stack(torch.aminmax(real))).all()
