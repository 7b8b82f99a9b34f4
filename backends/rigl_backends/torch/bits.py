"""Masks as integers: all bits set where a connection is active, none elsewhere.

A bitwise AND with them zeroes what is inactive at the speed of a multiplication and, unlike it, also
where the value is NaN or infinite.
"""

from __future__ import annotations

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(mask: Tensor, like: Tensor) -> Tensor:
    """A bool mask as integers, with the strides, device and item size of ``like``."""
    bits = torch.empty_like(like, dtype=_INTEGERS[like.element_size()], requires_grad=False)
    return bits.copy_(mask).neg_()


def mask_of(bits: Tensor) -> Tensor:
    """The bool mask, as a new tensor."""
    return bits.to(torch.int8).neg_().view(torch.bool)


def fits(bits: Tensor, values: Tensor) -> bool:
    """Whether ``bits`` can mask ``values``: the same device and item size."""
    return bits.device == values.device and bits.element_size() == values.element_size()


def keep_active_(values: Tensor, bits: Tensor) -> None:
    """Set the inactive ``values`` to +0 in place; the active ones stay bit for bit."""
    values.detach().view(bits.dtype).bitwise_and_(bits)
