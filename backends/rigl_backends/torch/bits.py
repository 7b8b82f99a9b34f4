"""Masks as integers: all bits set where a connection is active, none elsewhere.

A bitwise AND with them zeroes what is inactive at the speed of a multiplication and, unlike it, also where the value is
NaN or infinite. NumPy does the work that updates ask for, as in `rigl_backends.torch.namespace`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rigl_backends.torch.namespace import numpy_shares
from rigl_core import adapter

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(mask: Tensor, like: Tensor) -> Tensor:
    """A bool mask as integers, with the strides, device and item size of ``like``."""
    bits = torch.empty_like(like, dtype=_INTEGERS[like.element_size()], requires_grad=False)
    set_bits(bits, mask)
    return bits


def set_bits(bits: Tensor, mask: Tensor) -> None:
    """Make ``bits``, in place, those of another bool mask."""
    if numpy_shares(mask, bits):
        np.negative(mask.numpy().view(np.int8), out=bits.numpy())
    else:
        bits.copy_(mask).neg_()


def mask_of(bits: Tensor) -> Tensor:
    """The bool mask, as a new tensor."""
    if numpy_shares(bits):
        return torch.from_numpy(np.not_equal(bits.numpy(), 0))
    return bits.to(torch.int8).neg_().view(torch.bool)


def fits(bits: Tensor, values: Tensor) -> bool:
    """Whether ``bits`` are of the values' device and item size."""
    return bits.device == values.device and bits.element_size() == values.element_size()


def zero_outside(values: Tensor, inside: Tensor) -> None:
    """Set the values outside a mask to +0, in place; those inside stay bit for bit.

    Args:
        values: any numbers.
        inside: of the values' shape: bits that fit them, or a bool mask.
    """
    own = values.detach().view(_INTEGERS[values.element_size()])
    if inside.dtype != torch.bool:
        own.bitwise_and_(inside)
    elif numpy_shares(own, inside):
        adapter.zero_outside(own.numpy(), np.ascontiguousarray(inside.numpy()))
    else:
        own.bitwise_and_(bits_of(inside.to(own.device), own))
