"""The products of a sparse layer by numba: the functions of `numpy_kernels`, which has their documentation.

The result does not depend on the number of threads: each number is computed by one thread, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np

from rigl_core.sparse.compiling import tell_if_compiled
from rigl_core.sparse.index import Floats, Index
from rigl_core.sparse.numba_vectors import COLUMNS, ROWS
from rigl_core.sparse.threads import ranges, run

_start = perf_counter()
from rigl_core.sparse import numba_loops as loops  # noqa: E402 - it compiles its loops

tell_if_compiled(loops, _start)

LANES = (16, 32, 64)
"""What a panel can have. All panels of a batch have 64, except the last one, which has as few as hold its samples."""
WORTH_A_THREAD = 1 << 22
"""Multiplications by active weights that each thread must have: it takes a tenth of a millisecond to wake one."""
WORKS = 3
"""The parts that the work is cut into for each thread, so that one that wakes late does fewer."""


def forward(index: Index, values: Floats, x: Floats, *, threads: int = 1) -> Floats:
    """The outputs of a layer without its bias; see `numpy_kernels.forward`."""
    check("values", values, index.size)
    check("x", x, index.cols, *x.shape[1:2])
    y = memory(index.rows, x.shape[1])
    if x.shape[1] == 1:
        _forward_sample(index, values, x.reshape(-1), y.reshape(-1), threads)
        return y
    panels = list(panels_of(x.shape[1]))
    outputs = [panel.empty(y) for panel in panels]
    threads = useful(threads, index.size * x.shape[1])
    parts = ranges(index.rows, -(-WORKS * threads // max(len(panels), 1)) if threads > 1 else 1)

    def work(inputs: Floats, output: Floats, first: int, last: int, packed: Floats) -> None:
        loops.forward_rows(index.pointers, index.columns, index.width, values, inputs, output, first, last, packed)

    works = [
        partial(work, panel.of(x), output, *rows)
        for panel, output in zip(panels, outputs, strict=True)
        for rows in parts
    ]
    run(works, threads, partial(memory, index.width, LANES[-1]))
    write_back(y, panels, outputs)
    return y


def _forward_sample(index: Index, values: Floats, x: Floats, y: Floats, threads: int) -> None:
    """Write the outputs of one sample."""
    threads = useful(threads, LANES[0] * index.size)

    def work(first: int, last: int, _: None) -> None:
        loops.forward_sample(index.pointers, index.columns, index.width, values, x, y, first, last)

    parts = ranges(index.rows, WORKS * threads if threads > 1 else 1)
    run([partial(work, *rows) for rows in parts], threads, lambda: None)


def backward(
    index: Index, values: Floats, x: Floats, dy: Floats, *, needs_inputs: bool = True, threads: int = 1
) -> tuple[Floats | None, Floats]:
    """The gradients of the inputs and of the active weights; see `numpy_kernels.backward`."""
    check("values", values, index.size)
    check("x", x, index.cols, *x.shape[1:2])
    check("dy", dy, index.rows, *x.shape[1:2])
    dx = memory(*x.shape) if needs_inputs else np.empty((0, x.shape[1]), np.float32)
    gradient = np.zeros_like(values)
    panels = list(panels_of(x.shape[1]))
    outputs = [panel.empty(dx) for panel in panels]
    arrays = [(panel.of(x), panel.of(dy), output) for panel, output in zip(panels, outputs, strict=True)]

    def work(tile: int, packed: Floats) -> None:
        for own in arrays:
            loops.backward_tile(index.pointers, index.columns, index.width, values, tile, *own, gradient, packed)

    works = [partial(work, tile) for tile in range(index.tiles)]
    run(works, useful(threads, 2 * index.size * x.shape[1]), partial(memory, 2, index.width, LANES[-1]))
    if not needs_inputs:
        return None, gradient
    write_back(dx, panels, outputs)
    return dx, gradient


def add_products(left: Floats, right: Floats, total: Floats, *, threads: int = 1) -> None:
    """Add a block of a dense gradient, in a fixed order; see `numpy_kernels.add_products`."""
    check("left", left, *left.shape[:2])
    check("right", right, *right.shape[:1], *left.shape[1:2])
    check("total", total, *left.shape[:1], *right.shape[:1])
    rows, batch = left.shape
    threads = useful(threads, rows * right.shape[0] * batch // 4)
    blocks = _blocks(left)

    def work(first: int, last: int, panel: Floats) -> None:
        loops.product_columns(blocks, right, total, first, last, panel)

    works = [partial(work, *columns) for columns in ranges(right.shape[0], WORKS * threads, step=COLUMNS)]
    run(works, threads, partial(memory, batch + ROWS, COLUMNS))


def transposed(array: Floats, *, threads: int = 1) -> Floats:
    """A transposed copy; see `numpy_kernels.transposed`."""
    check("array", array, *array.shape[:2])
    result = memory(*array.shape[::-1])
    threads = useful(threads, array.size)

    def work(first: int, last: int, _: None) -> None:
        loops.transpose_range(array, result, first, last)

    works = [partial(work, *rows) for rows in ranges(array.shape[0], WORKS * threads, step=COLUMNS)]
    run(works, threads, lambda: None)
    return result


@dataclass(frozen=True)
class Panel:
    """Some samples of a batch, and the lanes that they are given."""

    first: int
    last: int
    lanes: int

    @property
    def samples(self) -> slice:
        """Where the samples are in the batch."""
        return slice(self.first, self.last)

    def of(self, array: Floats) -> Floats:
        """The samples in an array (features, batch), with zeros up to the lanes: a view where none are needed."""
        samples = array[:, self.samples]
        if samples.shape[1] == self.lanes:
            return samples
        padded = np.zeros((array.shape[0], self.lanes), np.float32)
        padded[:, : samples.shape[1]] = samples
        return padded

    def empty(self, array: Floats) -> Floats:
        """Where these samples of an array can be written: the array itself, if they fill the lanes."""
        samples = array[:, self.samples]
        return samples if samples.shape[1] == self.lanes else memory(array.shape[0], self.lanes)


def panels_of(batch: int) -> Iterator[Panel]:
    """Cut a batch into panels."""
    for first in range(0, batch, LANES[-1]):
        last = min(first + LANES[-1], batch)
        yield Panel(first, last, next(lanes for lanes in LANES if lanes >= last - first))


def write_back(array: Floats, panels: Sequence[Panel], outputs: Sequence[Floats]) -> None:
    """Copy what was not written into the array itself."""
    for panel, output in zip(panels, outputs, strict=True):
        if output.base is not array.base:
            array[:, panel.samples] = output[:, : panel.last - panel.first]


def check(name: str, array: Floats, *shape: int) -> None:
    """Refuse an array before a loop reads what is not there."""
    if array.dtype != np.float32 or array.shape != shape or not array.flags.c_contiguous:
        wanted = f"a float32 array of shape {shape}, contiguous in C order"
        raise ValueError(
            f"{name} must be {wanted}: it is {array.dtype} of shape {array.shape}, strides {array.strides}."
        )


def _blocks(left: Floats) -> Floats:
    """The rows of (rows, batch) in blocks (blocks, batch, 6); rows of 0 fill the last block."""
    rows, batch = left.shape
    blocks = np.zeros((-(-rows // ROWS), batch, ROWS), np.float32)
    for row in range(rows):
        blocks[row // ROWS, :, row % ROWS] = left[row]
    return blocks


def memory(*shape: int) -> Floats:
    """An array of any values that begins at a line of the cache, which a vector must not cross."""
    size = math.prod(shape)
    buffer = np.empty(size + 16, np.float32)
    start = -(buffer.ctypes.data // 4) % 16
    return buffer[start : start + size].reshape(shape)


def useful(threads: int, multiplications: int) -> int:
    """The threads that are worth their start."""
    return max(1, min(threads, multiplications // WORTH_A_THREAD))
