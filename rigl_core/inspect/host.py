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
        array = (array.full_tensor() if hasattr(array, "full_tensor") else array).cpu()
        if str(array.dtype) == "torch.bfloat16":
            array = array.float()
    return np.asarray(array)
