"""A layer as a sparse matrix of SciPy, from any framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rigl_core.inspect.host import to_numpy

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def to_scipy(weight: Any, mask: Any = None) -> csr_array:
    """A layer's active weights as a `scipy.sparse.csr_array` of the weight's own shape and dtype.

    ::

        matrices = {name: to_scipy(model.get_parameter(name), mask) for name, mask in sparse.masks.items()}

    Args:
        weight: array or tensor with two axes, in any framework.
        mask: bool array of the same shape. With one, active weights that are 0 are in the matrix, too.

    Raises:
        ImportError: if SciPy is not installed.
        ValueError: if the weight does not have two axes, or the mask does not fit.
    """
    try:
        from scipy.sparse import csr_array
    except ModuleNotFoundError as error:
        raise ImportError("rigl_core.serving.to_scipy needs SciPy: pip install scipy") from error
    values = to_numpy(weight)
    if values.ndim != 2:
        raise ValueError(
            f"weight has shape {values.shape}: a matrix has two axes; reshape it, for example to (outputs, -1)."
        )
    active = values != 0 if mask is None else to_numpy(mask)
    if active.shape != values.shape or active.dtype != np.bool_:
        raise ValueError(
            f"mask is a {active.dtype} array of shape {active.shape}: it must be bool, of shape {values.shape}."
        )
    rows, columns = np.nonzero(active)
    return csr_array((values[active], (rows, columns)), shape=values.shape)
