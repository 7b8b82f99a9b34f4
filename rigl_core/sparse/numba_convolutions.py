"""The products of a sparse convolution by numba: the functions of `numpy_convolutions`, which has their documentation.

The result does not depend on the number of threads: each number is computed by one thread, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import perf_counter

import numpy as np

from rigl_core.sparse.compiling import tell_if_compiled
from rigl_core.sparse.convolution import Places, Windows
from rigl_core.sparse.index import Floats, Index
from rigl_core.sparse.numba_kernels import LANES, WORKS, Panel, check, memory, panels_of, useful
from rigl_core.sparse.threads import ranges, run

_start = perf_counter()
from rigl_core.sparse import convolution_loops as loops  # noqa: E402 - it compiles its loops

tell_if_compiled(loops, _start)


def forward(index: Index, values: Floats, planes: Floats, windows: Windows, *, threads: int = 1) -> Floats:
    """The outputs of a convolution without its bias; see `numpy_convolutions.forward`."""
    _check(index, values, planes, windows)
    layer, x, y = (index.pointers, index.columns, index.width, values), planes.reshape(-1), memory(*windows.shape)
    panels = list(panels_of(windows.positions.size))
    threads = useful(threads, index.size * windows.positions.size)
    parts = -(-WORKS * threads // max(len(panels) * windows.groups, 1)) if threads > 1 else 1

    def work(starts: Places, panel: Panel, first: int, last: int, own: tuple[Floats, Floats]) -> None:
        packed, sums = own
        sums = sums[: (last - first) * panel.lanes].reshape(last - first, panel.lanes)
        positions, outputs = windows.positions[panel.samples], windows.out_positions[panel.samples]
        loops.forward_rows(
            *layer, x, starts, positions, windows.out_starts, outputs, y.reshape(-1), first, last, packed, sums
        )

    works = [
        partial(work, starts, panel, first + begin, first + end)
        for starts, first, last in _groups(index, windows)
        for panel in panels
        for begin, end in ranges(last - first, parts)
    ]
    run(works, threads, lambda: (memory(index.width * LANES[-1]), memory(index.rows * LANES[-1])))
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
    check("dy", dy, *windows.shape)
    dplanes, x = np.zeros_like(planes) if needs_inputs else None, planes.reshape(-1)
    dx = np.empty(0, np.float32) if dplanes is None else dplanes.reshape(-1)
    gradient = np.zeros_like(values)
    threads = useful(threads, 2 * index.size * windows.positions.size)
    panels = [(panel, memory(index.rows, panel.lanes)) for panel in panels_of(windows.positions.size)]

    def pack(panel: Panel, packed: Floats, _: None) -> None:
        own = windows.out_positions[panel.samples]
        loops.pack_panel(dy.reshape(-1), windows.out_starts, own, panel.lanes, packed.reshape(-1))

    layer = index.pointers, index.columns, index.width, values

    def work(starts: Places, first: int, last: int, tile: int, packed: Floats) -> None:
        for panel, outputs in panels:
            own = windows.positions[panel.samples]
            loops.backward_tile(*layer, tile, x, starts, own, outputs, first, last, dx, gradient, packed)

    run([partial(pack, *panel) for panel in panels], threads, lambda: None)
    works = [partial(work, *group, tile) for group in _groups(index, windows) for tile in range(index.tiles)]
    run(works, threads, partial(memory, 2, index.width * LANES[-1]))
    return dplanes, gradient


def unfolded(array: Floats, starts: Places, positions: Places, *, threads: int = 1) -> Floats:
    """Numbers of a flat array, as a matrix; see `numpy_convolutions.unfolded`."""
    size = positions.size
    result = memory(starts.size, size)
    threads = useful(threads, result.size)

    def work(first: int, last: int, _: None) -> None:
        loops.pack_panel(array.reshape(-1), starts[first:last], positions, size, result[first:last].reshape(-1))

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
    check("planes", planes, *planes.shape)
    if planes.size != windows.size:
        raise ValueError(f"planes have {planes.size} numbers: these windows read {windows.size}.")
    if (windows.starts.size, windows.out_starts.size) != (index.cols, index.rows):
        raise ValueError(
            f"windows are those of {windows.starts.size} columns and {windows.out_starts.size} rows: the layer has "
            f"{index.cols} and {index.rows}."
        )
    if index.tiles > 1 and index.width % windows.kernel:
        raise ValueError(
            f"index has tiles of {index.width} columns, and a channel has {windows.kernel}: tiles must hold whole ones."
        )
