"""Tensors in the host's memory as arrays of NumPy, which works on them where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


def numpy_shares(x: Tensor) -> bool:
    """Whether NumPy can go where the tensor is: not to a GPU, and not under a compiler."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu"


def as_numpy(x: Tensor) -> Any:
    """The tensor's numbers; of bfloat16, which NumPy lacks, as float32, part by part."""
    return _Widened(x.view(torch.int16).numpy()) if x.dtype == torch.bfloat16 else x.numpy()


class _Widened:
    """The bits of bfloat16 numbers, of which each part is read as float32."""

    def __init__(self, bits: npt.NDArray[np.int16]) -> None:
        self._bits = bits

    def __getitem__(self, part: Any) -> npt.NDArray[np.float32]:
        wide: npt.NDArray[np.float32] = (self._bits[part].astype(np.int32) << 16).view(np.float32)
        return wide


def kth_largest_on_host(scores: Tensor, k: int) -> Tensor:
    """See `rigl_core.arrays.namespace.Namespace.kth_largest`; k is at least 1."""
    halves = scores.dtype.itemsize == 2
    values = _in_order(scores.view(torch.int16).numpy()) if halves else scores.numpy()
    position = values.shape[-1] - k
    found = np.partition(values, position)[..., position : position + 1].copy()
    return torch.from_numpy(_in_order(found)).view(scores.dtype) if halves else torch.from_numpy(found)


def _in_order(bits: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """The bits of 16-bit floats as integers in the floats' order, and back: it is its own inverse."""
    return bits ^ ((bits >> 15) & np.int16(0x7FFF))
