"""The dense gradient of a sparse convolution, in blocks: its inputs are unfolded piece by piece, and never whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from rigl_core.sparse.convolution import Places, Windows
from rigl_core.sparse.gradients import BLOCK, Products
from rigl_core.sparse.index import Floats, Index
from rigl_core.sparse.kernels import Convolutions, Kernels

Sample = tuple[Floats, Windows, Floats]
"""The planes of inputs, where they are read, and the gradient of outputs (images, channels, height, width)."""


class ConvolutionProducts(Products):
    """The dense gradient that inputs and output gradients define: the sum of their products over all positions."""

    def __init__(
        self,
        active: Floats,
        samples: Sequence[Sample],
        *,
        index: Index,
        kernels: Kernels,
        convolutions: Convolutions,
        threads: int = 1,
    ) -> None:
        """The gradient of one step.

        Args:
            active: the gradient of the active weights, in storage order.
            samples: in the order in which they are added: the uses of the layer, and its micro-batches.
            index: where the active weights are.
            kernels: make the products.
            convolutions: unfold the inputs.
            threads: the threads to work with.
        """
        super().__init__(active, [], inputs_first=index.inputs_first, kernels=kernels, threads=threads)
        self._pairs, self._convolutions = list(samples), convolutions
        self._kernel = index.kernel
        self._rows, self._inputs_first = np.arange(index.rows), index.inputs_first
        columns = np.arange(index.cols)
        self._columns = columns.reshape(-1, index.kernel).T.reshape(-1) if index.inputs_first else columns

    @property
    def _shape(self) -> tuple[int, int]:
        sizes = self._rows.size, self._columns.size
        return sizes[::-1] if self._inputs_first else sizes

    def _step(self, size: int) -> int:
        """As in a matrix, but prime to the positions of the kernel, so that a sample has columns of all of them."""
        step = super()._step(size)
        while math.gcd(step, self._kernel) > 1:
            step += 1
        return step

    def _sum(self, lines: slice, others: slice) -> Floats:
        own, own_columns = (others, lines) if self._inputs_first else (lines, others)
        rows, columns = self._rows[own], self._columns[own_columns]
        total = np.zeros((rows.size, columns.size), np.float32)
        for sample in self._pairs:
            for group, part in _in_groups(rows, sample[1]):
                self._add(sample, group, rows[part], columns, total[part])
        if self._scale != 1:
            total *= self._scale
        return np.ascontiguousarray(total.T) if self._inputs_first else total

    def _add(self, sample: Sample, group: int, rows: Places, columns: Places, total: Floats) -> None:
        """Add the products of some rows of a group and some columns, position after position."""
        planes, windows, dy = sample
        starts, out_starts = windows.starts_of(group)[columns], windows.out_starts[rows]
        step = max(1, BLOCK // max(starts.size, out_starts.size, 1))
        for first in range(0, windows.positions.size, step):
            own = slice(first, first + step)
            x = self._convolutions.unfolded(planes, starts, windows.positions[own], threads=self._threads)
            d = self._convolutions.unfolded(dy, out_starts, windows.out_positions[own], threads=self._threads)
            self._kernels.add_products(d, x, total, threads=self._threads)


def _in_groups(rows: Places, windows: Windows) -> Iterator[tuple[int, slice]]:
    """The groups, and which of some ascending rows are in each."""
    in_group = windows.out_starts.size // windows.groups
    for group in range(windows.groups):
        first, last = np.searchsorted(rows, (group * in_group, (group + 1) * in_group))
        if first < last:
            yield group, slice(first, last)
