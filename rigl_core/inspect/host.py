"""Arrays of any framework, as NumPy's, for what is read on the host: reports, histories, lottery tickets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def to_numpy(array: Any) -> npt.NDArray[Any]:
    """The array for NumPy: a view where it lies in the host's memory, a copy where not.

    Whatever has ``__array__`` will do. PyTorch's tensors refuse while they are on a GPU or have a gradient, and their
    bfloat16 is unknown to NumPy: float32 holds the same values.
    """
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":
            array = array.float()
    return np.asarray(array)
