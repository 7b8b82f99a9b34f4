"""The products of a sparse layer by NumPy: the definition of what the kernels compute, and the way without numba.

Activations are *feature-major*: (features, batch), float32, contiguous in C order. The kernels by numba raise a
ValueError for arrays of another dtype, shape or order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from rigl_core.sparse.index import Floats, Index


def forward(index: Index, values: Floats, x: Floats, *, threads: int = 1) -> Floats:
    """The outputs of a layer without its bias: y[r] = sum over c of values[r, c] * x[c].

    Args:
        index: where the active connections are.
        values: their weights, in storage order.
        x: inputs (cols, batch).
        threads: the threads to work with; the result is the same.

    Returns:
        Outputs (rows, batch).
    """
    y = np.zeros((index.rows, x.shape[1]), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # as loops by numba do: infinite numbers go on
        for row, col, part in rows_of(index):
            y[row] += values[part] @ x[col]
    return y


def backward(
    index: Index, values: Floats, x: Floats, dy: Floats, *, needs_inputs: bool = True, threads: int = 1
) -> tuple[Floats | None, Floats]:
    """The gradients of the inputs and of the active weights.

    Args:
        index: where the active connections are.
        values: their weights, in storage order.
        x: the inputs (cols, batch) of `forward`.
        dy: the gradient of the outputs (rows, batch).
        needs_inputs: whether the gradient of the inputs is wanted.
        threads: the threads to work with; the result is the same.

    Returns:
        The gradient of the inputs (cols, batch), or None; and of the weights, in storage order.
    """
    dx = np.zeros_like(x) if needs_inputs else None
    gradient = np.empty_like(values)
    with np.errstate(over="ignore", invalid="ignore"):
        for row, col, part in rows_of(index):
            gradient[part] = x[col] @ dy[row]
            if dx is not None:
                dx[col] += np.outer(values[part], dy[row])
    return dx, gradient


def add_products(left: Floats, right: Floats, total: Floats, *, threads: int = 1) -> None:
    """Add a block of a dense gradient, in a fixed order: total[i, j] += left[i, b] * right[j, b], b after b.

    Every product is rounded to float32 before it is added. So the result has the same bits on every machine and with
    any number of threads.

    Args:
        left: (block, batch), such as the gradients of some outputs.
        right: (others, batch), such as the inputs.
        total: (block, others); changed in place.
        threads: the threads to work with; the result is the same.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # an update waits for sums that are finite
        for a, b in zip(left.T, np.ascontiguousarray(right.T), strict=True):
            total += a[:, None] * b


def transposed(array: Floats, *, threads: int = 1) -> Floats:
    """A contiguous copy with the axes exchanged, which makes batch-major activations feature-major and back.

    Args:
        array: of two axes; each row is contiguous.
        threads: the threads to work with.
    """
    return np.ascontiguousarray(array.T)


def rows_of(index: Index) -> Iterator[tuple[int, npt.NDArray[np.intp], slice]]:
    """Each row of each tile that has connections: its number, its columns, and its place in storage order."""
    for segment in np.flatnonzero(np.diff(index.pointers)):
        tile, row = divmod(int(segment), index.rows)
        part = slice(index.pointers[segment], index.pointers[segment + 1])
        yield row, index.columns[part].astype(np.intp) + tile * index.width, part
