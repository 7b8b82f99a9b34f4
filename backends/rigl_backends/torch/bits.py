"""Masks as integers: all bits set where a connection is active, none elsewhere.

A bitwise AND with them zeroes what is inactive at the speed of a multiplication and, unlike it, also
where the value is NaN or infinite.

Updates move layers in threads of their own. What they call works in the calling thread alone, by NumPy
where that can reach the tensors: the threads that PyTorch would start for each of them wait for each other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rigl_core.step.selection import zero_outside

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(mask: Tensor, like: Tensor) -> Tensor:
    """A bool mask as integers, with the strides, device and item size of ``like``."""
    bits = torch.empty_like(like, dtype=_INTEGERS[like.element_size()], requires_grad=False)
    set_bits_(bits, mask)
    return bits


def set_bits_(bits: Tensor, mask: Tensor) -> None:
    """Make ``bits`` those of another mask."""
    if _on_host(mask, bits):
        np.negative(mask.numpy().view(np.int8), out=bits.numpy())
    else:
        bits.copy_(mask).neg_()


def mask_of(bits: Tensor) -> Tensor:
    """The bool mask, as a new tensor."""
    if _on_host(bits):
        return torch.from_numpy(np.not_equal(bits.numpy(), 0))
    return bits.to(torch.int8).neg_().view(torch.bool)


def fits(bits: Tensor, values: Tensor) -> bool:
    """Whether ``bits`` can mask ``values``: the same device and item size."""
    return bits.device == values.device and bits.element_size() == values.element_size()


def keep_active_(values: Tensor, bits: Tensor) -> None:
    """Set the inactive ``values`` to +0 in place; the active ones stay bit for bit."""
    values.detach().view(bits.dtype).bitwise_and_(bits)


def keep_only_(values: Tensor, mask: Tensor) -> None:
    """The same, given a bool mask."""
    own = values.detach().view(_INTEGERS[values.element_size()])
    if _on_host(own, mask):
        zero_outside(own.numpy(), np.ascontiguousarray(mask.numpy()))
    else:
        keep_active_(values, bits_of(mask.to(values.device), values))


def _on_host(*tensors: Tensor) -> bool:
    return all(tensor.device.type == "cpu" for tensor in tensors)
