"""The array operations of the core, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rigl_backends.torch.host import as_numpy, kth_largest_on_host, numpy_shares
from rigl_core.arrays.namespace import HostNamespace


class TorchNamespace:
    """See `rigl_core.arrays.namespace.Namespace`; everything stays on the tensors' device."""

    abs = staticmethod(torch.abs)
    zeros_like = staticmethod(torch.zeros_like)
    full_like = staticmethod(torch.full_like)
    reshape = staticmethod(torch.reshape)
    permute = staticmethod(torch.permute)

    @staticmethod
    def where(condition: Tensor, x: Tensor, y: Tensor, /) -> Tensor:
        return torch.where(condition, x, y)

    @staticmethod
    def count(mask: Tensor, /) -> Tensor:
        return torch.sum(mask, -1, keepdim=True, dtype=torch.int32)

    @staticmethod
    def cumulative_count(mask: Tensor, /) -> Tensor:
        return torch.cumsum(mask, -1, dtype=torch.int32)

    @staticmethod
    def smallest_normal(x: Tensor, /) -> float:
        return torch.finfo(x.dtype).smallest_normal

    @staticmethod
    def shift_right(x: Tensor, bits: int, /) -> Tensor:
        return torch.bitwise_right_shift(x, bits)

    @staticmethod
    def kth_largest(scores: Tensor, k: Any, /) -> Tensor:
        if scores.shape[-1] == 0:
            return scores.new_zeros((*scores.shape[:-1], 1))
        if numpy_shares(scores):
            return kth_largest_on_host(scores, max(int(k), 1))  # NumPy selects some fifteen times faster
        if not isinstance(k, Tensor):
            return torch.topk(scores, max(k, 1)).values[..., -1:]
        # A number that is on the device stays there.
        position = (k.reshape(()) - 1).clamp(min=0).expand(*scores.shape[:-1], 1)
        return torch.sort(scores, descending=True).values.gather(-1, position.long())

    @staticmethod
    def concat(arrays: Sequence[Tensor], /) -> Tensor:
        return torch.cat(list(arrays))

    @staticmethod
    def widen(x: Tensor, /) -> Tensor:
        return x.float() if x.dtype.itemsize == 2 else x

    @staticmethod
    def cast(x: Tensor, like: Tensor, /) -> Tensor:
        return x.to(like.dtype)

    @staticmethod
    def integers(x: Tensor, /) -> Tensor:
        return x.to(torch.int32)

    @staticmethod
    def both(x: Tensor, y: Tensor, /) -> Tensor:
        # The threads that PyTorch would start in each of an update's own wait for each other.
        return torch.from_numpy(x.numpy() & y.numpy()) if numpy_shares(x) and numpy_shares(y) else x & y

    @staticmethod
    def on_host(choose: Callable[..., npt.NDArray[np.bool_]], /, *arrays: Tensor | int) -> Tensor | None:
        if not all(numpy_shares(array) for array in arrays if isinstance(array, Tensor)):
            return None
        return torch.from_numpy(choose(*(as_numpy(x) if isinstance(x, Tensor) else x for x in arrays)))


torch_namespace: HostNamespace = TorchNamespace()
