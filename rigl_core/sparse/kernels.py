"""What multiplies sparse layers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from rigl_core.sparse.index import Index

Floats = npt.NDArray[np.float32]


class Kernels(Protocol):
    """The products of sparse layers; `rigl_core.sparse.numpy_kernels` defines them."""

    def forward(self, index: Index, values: Floats, x: Floats, *, threads: int = 1) -> Floats: ...

    def backward(
        self, index: Index, values: Floats, x: Floats, dy: Floats, *, needs_inputs: bool = True, threads: int = 1
    ) -> tuple[Floats | None, Floats]: ...

    def add_products(self, left: Floats, right: Floats, total: Floats, *, threads: int = 1) -> None: ...


def best_kernels() -> Kernels:
    """The fastest kernels that are installed."""
    from rigl_core.sparse import numpy_kernels

    return numpy_kernels
