"""The products of one layer, forward and backward: by our kernels, by torch's CSR matrices, and dense ones by torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from rigl_core.sparse.index import Index
from rigl_core.sparse.kernels import best_kernels

Floats = npt.NDArray[np.float32]
Act = Callable[[], object]
BLOCK = 64
"""Rows of a dense gradient that an update sees at a time."""


class Layer:
    """A layer of as many outputs as inputs, its inputs and the gradient of its outputs, in both layouts.

    Args:
        size: its inputs.
        batch: samples.
        density: the share of its connections that are active.
        threads: what the kernels and torch work with.
    """

    def __init__(self, size: int, batch: int, density: float, threads: int) -> None:
        torch.set_num_threads(threads)
        random = np.random.default_rng(0)
        flat = np.flatnonzero(random.random(size * size, np.float32) < density).astype(np.int32)
        self.threads = threads
        self.index = Index.of(flat, size, size)
        self.values = random.standard_normal(flat.size, np.float32)
        self.x, self.dy = (random.standard_normal((size, batch), np.float32) for _ in range(2))
        self.x_rows, self.dy_rows = (torch.from_numpy(array).t().contiguous() for array in (self.x, self.dy))
        self.kernels = best_kernels()

    def dense(self) -> Act:
        """Torch's three dense products, batch-major, as in a training."""
        weight = torch.from_numpy(self.index.dense(self.values).reshape(self.index.rows, self.index.cols))

        def act() -> None:
            _ = self.x_rows @ weight.t(), self.dy_rows @ weight, self.dy_rows.t() @ self.x_rows

        return act

    def feature_major(self, threads: int | None = None) -> Act:
        """Our kernels on their own layout."""
        threads = threads or self.threads

        def act() -> None:
            self.kernels.forward(self.index, self.values, self.x, threads=threads)
            self.kernels.backward(self.index, self.values, self.x, self.dy, threads=threads)

        return act

    def batch_major(self) -> Act:
        """Our kernels, with a transposed copy of each array that goes in or comes out."""

        def transposed(array: Floats) -> Floats:
            return self.kernels.transposed(array, threads=self.threads)

        def act() -> None:
            x, dy = transposed(self.x_rows.numpy()), transposed(self.dy_rows.numpy())
            y = self.kernels.forward(self.index, self.values, x, threads=self.threads)
            dx, _ = self.kernels.backward(self.index, self.values, x, dy, threads=self.threads)
            for array in (y, dx):
                transposed(array)

        return act

    def csr(self) -> Act:
        """Torch's CSR matrices: two of them, since the gradient of the inputs needs the transposed one."""
        order = self.index.order()
        row, column = np.divmod(self.index.flat()[order], self.index.cols)
        values = torch.from_numpy(self.values[order])
        matrix, zeros = _csr(row, column, values, self.index.rows), _csr(row, column, 0 * values, self.index.rows)
        transposed = np.lexsort((row, column))
        places = torch.from_numpy(transposed)
        x, dy = torch.from_numpy(self.x), torch.from_numpy(self.dy)
        row, column = column[transposed], row[transposed]

        def act() -> None:
            _ = matrix @ x, _csr(row, column, values[places], self.index.cols) @ dy
            torch.sparse.sampled_addmm(zeros, dy, x.t(), beta=0.0)

        return act

    def products(self) -> Act:
        """A block of the dense gradient by our kernels, in a fixed order of summation."""
        block, total = np.ascontiguousarray(self.dy[:BLOCK]), np.zeros((BLOCK, self.index.cols), np.float32)
        return partial(self.kernels.add_products, block, self.x, total, threads=self.threads)

    def blas(self) -> Act:
        """The same block by torch."""
        block, total = torch.from_numpy(self.dy[:BLOCK]), torch.zeros(BLOCK, self.index.cols)
        return partial(torch.mm, block, torch.from_numpy(self.x).t(), out=total)


def make(contender: str, baseline: str, layer: Mapping[str, float]) -> tuple[Act, Act]:
    """What is measured, and what it is compared with."""
    made = Layer(**layer)
    acts = {
        "feature-major": made.feature_major,
        "batch-major": made.batch_major,
        "one thread": partial(made.feature_major, 1),
        "CSR": made.csr,
        "dense": made.dense,
        "products": made.products,
        "BLAS": made.blas,
    }
    return acts[contender](), acts[baseline]()


def _csr(row: npt.NDArray[np.int32], column: npt.NDArray[np.int32], values: torch.Tensor, rows: int) -> torch.Tensor:
    pointers = np.searchsorted(row, np.arange(rows + 1)).astype(np.int32)
    indices = torch.from_numpy(pointers), torch.from_numpy(column.astype(np.int32))
    return torch.sparse_csr_tensor(*indices, values, size=(rows, rows), check_invariants=False)
