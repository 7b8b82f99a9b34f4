"""The kernels that this environment has."""

from __future__ import annotations

import warnings
from typing import Protocol, cast

from rigl_core.model.warnings import SparsityWarning
from rigl_core.sparse import numpy_convolutions, numpy_kernels
from rigl_core.sparse.convolution import Places, Windows
from rigl_core.sparse.index import Floats, Index


class Kernels(Protocol):
    """The products of a sparse layer; `numpy_kernels` defines and documents them."""

    def forward(self, index: Index, values: Floats, x: Floats, *, threads: int = 1) -> Floats:
        """The outputs of a layer without its bias."""

    def backward(
        self, index: Index, values: Floats, x: Floats, dy: Floats, *, needs_inputs: bool = True, threads: int = 1
    ) -> tuple[Floats | None, Floats]:
        """The gradients of the inputs and of the active weights."""

    def add_products(self, left: Floats, right: Floats, total: Floats, *, threads: int = 1) -> None:
        """Add a block of a dense gradient, in a fixed order."""

    def transposed(self, array: Floats, *, threads: int = 1) -> Floats:
        """A contiguous copy with the axes exchanged."""


class Convolutions(Protocol):
    """The products of a sparse convolution; `numpy_convolutions` defines and documents them."""

    def forward(self, index: Index, values: Floats, planes: Floats, windows: Windows, *, threads: int = 1) -> Floats:
        """The outputs of a convolution without its bias."""

    def backward(
        self,
        index: Index,
        values: Floats,
        planes: Floats,
        windows: Windows,
        dy: Floats,
        *,
        needs_inputs: bool = True,
        threads: int = 1,
    ) -> tuple[Floats | None, Floats]:
        """The gradients of the inputs, as planes, and of the active weights."""

    def unfolded(self, array: Floats, starts: Places, positions: Places, *, threads: int = 1) -> Floats:
        """Numbers of a flat array, as a matrix."""


def best_kernels() -> Kernels:
    """The kernels of numba; without numba, those of NumPy, with a warning.

    The first call compiles, for some seconds, unless an earlier process has left the result on disk.

    Raises:
        ImportError: if numba is there, but cannot be imported.
    """
    try:
        from rigl_core.sparse import numba_kernels
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        message = (
            "numba is missing, so truly sparse layers compute with NumPy, slowly. "
            "For fast kernels: pip install 'rigl-core[sparse]'"
        )
        warnings.warn(message, SparsityWarning, stacklevel=2)
        return cast(Kernels, numpy_kernels)
    return cast(Kernels, numba_kernels)


def best_convolutions() -> Convolutions:
    """The kernels of convolutions that go with `best_kernels`; those of numba are compiled if they are asked for."""
    if best_kernels() is cast(Kernels, numpy_kernels):
        return cast(Convolutions, numpy_convolutions)
    from rigl_core.sparse import numba_convolutions

    return cast(Convolutions, numba_convolutions)
