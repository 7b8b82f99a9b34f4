"""Arrays of any framework as NumPy arrays, for reports, histories and lottery tickets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def to_numpy(array: Any) -> npt.NDArray[Any]:
    """A NumPy array of the values: a view if they lie in the host's memory, otherwise a copy.

    Args:
        array: any object with ``__array__``, or a PyTorch tensor, also on a GPU or with a gradient. A tensor of
            bfloat16 becomes float32, which holds the same values, since NumPy has no bfloat16. A DTensor is gathered:
            all processes that hold it must call this function at the same time.
    """
    if hasattr(array, "detach"):
        array = array.detach()
        array = (array.full_tensor() if is_spread(array) else array).cpu()
        if str(array.dtype) == "torch.bfloat16":
            array = array.float()
    return np.asarray(array)


def is_spread(array: Any) -> bool:
    """Whether an array lies in shards, of which this process holds one: PyTorch's DTensors."""
    return hasattr(array, "full_tensor")


def count_true(mask: Any) -> int:
    """The number of true values. All processes that hold shards of the mask must ask at the same time."""
    return int(to_numpy(mask.sum())) if is_spread(mask) else int(np.count_nonzero(to_numpy(mask)))
