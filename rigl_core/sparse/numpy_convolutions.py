"""The products of a sparse convolution by NumPy: the definition of what the kernels compute, and the way without numba.

Inputs lie in the planes of `rigl_core.sparse.convolution`; outputs are (images, channels, height, width). All of them
are float32, contiguous in C order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rigl_core.sparse.convolution import Places, Windows
from rigl_core.sparse.index import Floats, Index
from rigl_core.sparse.numpy_kernels import rows_of


def forward(index: Index, values: Floats, planes: Floats, windows: Windows, *, threads: int = 1) -> Floats:
    """The outputs without the bias: y[r, p] = sum over c of values[r, c] * planes[starts[c] + positions[p]].

    Args:
        index: where the active connections are.
        values: their weights, in storage order.
        planes: the inputs.
        windows: where they are read.
        threads: the threads to work with; the result is the same.

    Returns:
        Outputs (images, channels, height, width).
    """
    y, x = np.zeros(windows.shape, np.float32), planes.reshape(-1)
    for row, part, places in _reads(index, windows):
        y.reshape(-1)[windows.out_starts[row] + windows.out_positions] += values[part] @ x[places]
    return y


def backward(
    index: Index,
    values: Floats,
    planes: Floats,
    windows: Windows,
    dy: Floats,
    *,
    needs_inputs: bool = True,
    threads: int = 1,
) -> tuple[Floats | None, Floats]:
    """The gradients of the inputs and of the active weights.

    Args:
        index: where the active connections are.
        values: their weights, in storage order.
        planes: the inputs of `forward`.
        windows: where they are read.
        dy: the gradient of the outputs (images, channels, height, width).
        needs_inputs: whether the gradient of the inputs is wanted.
        threads: the threads to work with; the result is the same.

    Returns:
        The gradient of the inputs as planes, whose padding holds numbers of no meaning, or None; and the gradient of
        the weights, in storage order.
    """
    dplanes, x = np.zeros_like(planes) if needs_inputs else None, planes.reshape(-1)
    gradient = np.empty_like(values)
    for row, part, places in _reads(index, windows):
        own = dy.reshape(-1)[windows.out_starts[row] + windows.out_positions]
        gradient[part] = x[places] @ own
        if dplanes is not None:
            np.add.at(dplanes.reshape(-1), places, np.outer(values[part], own))
    return dplanes, gradient


def unfolded(array: Floats, starts: Places, positions: Places, *, threads: int = 1) -> Floats:
    """The numbers at starts[i] + positions[p] of a flat array, as an array (starts, positions).

    Args:
        array: planes, or outputs; of any shape.
        starts: those of columns, or of rows.
        positions: some positions.
        threads: the threads to work with.
    """
    result: Floats = array.reshape(-1)[np.add.outer(starts, positions)]
    return result


def _reads(index: Index, windows: Windows) -> Iterator[tuple[int, slice, Places]]:
    """Each row of each tile: its number, its place in storage order, and what its connections see."""
    in_group = max(index.rows // windows.groups, 1)
    for row, col, part in rows_of(index):
        yield row, part, np.add.outer(windows.starts_of(row // in_group)[col], windows.positions)
