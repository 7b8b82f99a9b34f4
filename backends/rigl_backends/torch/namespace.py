"""The array operations of the core (`rigl_core.arrays.namespace.Namespace`) in PyTorch. Tensors stay on their device.

Tensors in the host's memory are NumPy's too, which works on them where they lie, and often faster. PyTorch starts
threads for each operation; updates have threads of their own already, and these would wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rigl_core import adapter

int32 = torch.int32
best_of = None
first = None
total = None
finfo = torch.finfo

abs = torch.abs
where = torch.where
zeros_like = torch.zeros_like
full_like = torch.full_like
bitwise_right_shift = torch.bitwise_right_shift
reshape = torch.reshape
permute_dims = torch.permute


def logical_and(x: Tensor, y: Tensor, /) -> Tensor:
    return torch.from_numpy(x.numpy() & y.numpy()) if numpy_shares(x, y) else x & y


def sum(x: Tensor, /, *, axis: int, dtype: torch.dtype, keepdims: bool) -> Tensor:
    return torch.sum(x, axis, keepdim=keepdims, dtype=dtype)


def cumulative_sum(x: Tensor, /, *, axis: int, dtype: torch.dtype) -> Tensor:
    return torch.cumsum(x, axis, dtype=dtype)


def astype(x: Tensor, dtype: torch.dtype, /) -> Tensor:
    return x.to(dtype)


def concat(arrays: Sequence[Tensor], /) -> Tensor:
    return torch.cat(list(arrays))


def widen(x: Tensor, /) -> Tensor:
    return x.float() if x.dtype.itemsize == 2 else x


def kth_largest(scores: Tensor, k: Any, /) -> Tensor:
    if scores.shape[-1] == 0:
        return scores.new_zeros((*scores.shape[:-1], 1))
    if numpy_shares(scores):
        return _kth_largest_on_host(scores, max(int(k), 1))  # NumPy selects some fifteen times faster
    if not isinstance(k, Tensor):
        return torch.topk(scores, max(k, 1)).values[..., -1:]
    # A number that is on the device stays there.
    position = (k.reshape(()) - 1).clamp(min=0).expand(*scores.shape[:-1], 1)
    return torch.sort(scores, descending=True).values.gather(-1, position.long())


def on_host(choose: Callable[..., npt.NDArray[np.bool_]], /, *arrays: Tensor | int) -> Tensor | None:
    tensors = [array for array in arrays if isinstance(array, Tensor)]
    if not numpy_shares(*tensors):
        return None
    return torch.from_numpy(choose(*(_as_numpy(x) if isinstance(x, Tensor) else x for x in arrays)))


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers that are here are finite. The gradient of an embedding may be a sparse tensor.

    The host waits once for each device that is not its own.
    """
    arrays: list[Any] = []
    flags: dict[torch.device, list[Tensor]] = {}
    for x in tensors:
        values = (x.coalesce().values() if x.layout == torch.sparse_coo else x).detach()
        if numpy_shares(values) and values.dtype in (torch.float16, torch.float32, torch.float64):
            arrays.append(values.numpy())
        elif values.numel():  # the smallest and the largest number tell, a NaN going before both
            real = torch.view_as_real(values) if values.is_complex() else values
            flag = torch.isfinite(torch.stack(torch.aminmax(real))).all()
            flags.setdefault(flag.device, []).append(flag)
    return adapter.all_finite(arrays) and all(bool(torch.stack(own).all()) for own in flags.values())


def numpy_shares(*tensors: Tensor) -> bool:
    """Whether NumPy can go where the tensors are: not to a GPU, and not under a compiler."""
    return not torch.compiler.is_compiling() and all(tensor.device.type == "cpu" for tensor in tensors)


def _as_numpy(x: Tensor) -> Any:
    """The tensor's numbers; of bfloat16, which NumPy lacks, as float32, part by part."""
    return _Widened(x.view(torch.int16).numpy()) if x.dtype == torch.bfloat16 else x.numpy()


class _Widened:
    """The bits of bfloat16 numbers, of which each part is read as float32."""

    def __init__(self, bits: npt.NDArray[np.int16]) -> None:
        self._bits = bits

    def __getitem__(self, part: Any) -> npt.NDArray[np.float32]:
        wide: npt.NDArray[np.float32] = (self._bits[part].astype(np.int32) << 16).view(np.float32)
        return wide


def _kth_largest_on_host(scores: Tensor, k: int) -> Tensor:
    """`kth_largest` for k of at least 1."""
    halves = scores.dtype.itemsize == 2
    values = _in_order(scores.view(torch.int16).numpy()) if halves else scores.numpy()
    position = values.shape[-1] - k
    found = np.partition(values, position)[..., position : position + 1].copy()
    return torch.from_numpy(_in_order(found)).view(scores.dtype) if halves else torch.from_numpy(found)


def _in_order(bits: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """The bits of 16-bit floats as integers in the floats' order, and back: it is its own inverse."""
    return bits ^ ((bits >> 15) & np.int16(0x7FFF))
