"""The products of a sparse convolution by numba: the functions of `numpy_convolutions`, which has their documentation.

The result does not depend on the number of threads: each number is computed by one thread, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from rigl_core.sparse.compiling import told_if_slow
from rigl_core.sparse.convolution import Places, Windows
from rigl_core.sparse.index import Floats, Index
from rigl_core.sparse.numba_kernels import LANES, WORKS, check, memory, panels_of, useful, write_back
from rigl_core.sparse.threads import ranges, run

with told_if_slow():
    from rigl_core.sparse import convolution_loops as loops


def forward(index: Index, values: Floats, planes: Floats, windows: Windows, *, threads: int = 1) -> Floats:
    """The outputs of a convolution without its bias; see `numpy_convolutions.forward`."""
    _check(index, values, planes, windows)
    x, positions = planes.reshape(-1), windows.positions
    y = memory(index.rows, positions.size)
    panels = list(panels_of(positions.size))
    outputs = [panel.empty(y) for panel in panels]
    threads = useful(threads, index.size * positions.size)
    parts = -(-WORKS * threads // max(len(panels) * windows.groups, 1)) if threads > 1 else 1

    def work(starts: Places, own: Places, output: Floats, first: int, last: int, packed: Floats) -> None:
        loops.forward_rows(
            index.pointers, index.columns, index.width, values, x, starts, own, output, first, last, packed.reshape(-1)
        )

    works = [
        partial(work, starts, positions[panel.first : panel.last], output, first + begin, first + end)
        for starts, first, last in _groups(index, windows)
        for panel, output in zip(panels, outputs, strict=True)
        for begin, end in ranges(last - first, parts)
    ]
    run(works, threads, partial(memory, index.width + 1, LANES[-1]))
    write_back(y, panels, outputs)
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
    """The gradients of the inputs and of the active weights; see `numpy_convolutions.backward`."""
    _check(index, values, planes, windows)
    x, positions = planes.reshape(-1), windows.positions
    check("dy", dy, index.rows, positions.size)
    dplanes = np.zeros_like(planes) if needs_inputs else None
    dx = np.empty(0, np.float32) if dplanes is None else dplanes.reshape(-1)
    gradient = np.zeros_like(values)
    panels = panels_of(positions.size)  # of dy, rows that lie side by side are read faster
    arrays = [(positions[own.first : own.last], np.ascontiguousarray(own.of(dy))) for own in panels]

    def work(starts: Places, first: int, last: int, tile: int, packed: Floats) -> None:
        for own, outputs in arrays:
            loops.backward_tile(
                *(index.pointers, index.columns, index.width, values, tile, x, starts, own, outputs),
                *(first, last, dx, gradient, packed.reshape(2, -1)),
            )

    works = [partial(work, *group, tile) for group in _groups(index, windows) for tile in range(index.tiles)]
    run(works, useful(threads, 2 * index.size * positions.size), partial(memory, 2, index.width + 1, LANES[-1]))
    return dplanes, gradient


def unfolded(planes: Floats, starts: Places, positions: Places, *, threads: int = 1) -> Floats:
    """What some columns see at some positions; see `numpy_convolutions.unfolded`."""
    x, result = planes.reshape(-1), memory(starts.size, positions.size)
    threads = useful(threads, result.size)

    def work(first: int, last: int, _: None) -> None:
        loops.unfold_range(x, starts, positions, result, first, last)

    run([partial(work, *part) for part in ranges(starts.size, WORKS * threads)], threads, lambda: None)
    return result


def _groups(index: Index, windows: Windows) -> Iterator[tuple[Places, int, int]]:
    """The starts of each group, its first row, and the one after its last."""
    rows = index.rows // windows.groups
    for group in range(windows.groups):
        yield windows.starts_of(group), group * rows, (group + 1) * rows


def _check(index: Index, values: Floats, planes: Floats, windows: Windows) -> None:
    """Refuse arrays before a loop reads what is not there."""
    check("values", values, index.size)
    check("planes", planes, *planes.shape[:2])
    if windows.starts.size != index.cols or index.rows % windows.groups:
        raise ValueError(
            f"windows are those of {windows.starts.size} columns in {windows.groups} groups: the layer has "
            f"{index.cols} columns, and {index.rows} rows."
        )
    if index.tiles > 1 and index.width % windows.kernel:
        raise ValueError(
            f"index has tiles of {index.width} columns, and a channel has {windows.kernel}: tiles must hold whole ones."
        )
    if planes.size != windows.groups * windows.step:
        raise ValueError(f"planes have {planes.size} numbers: these windows read {windows.groups * windows.step}.")
