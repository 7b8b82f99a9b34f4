"""The dense gradient of a sparse layer, in blocks: it is seen once at an update and never held."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Protocol

import numpy as np

from rigl_core.sparse.index import Floats
from rigl_core.sparse.kernels import Kernels
from rigl_core.sparse.places import Flat

Block = tuple[int, Floats]
"""The flat index of a block's first connection, and its gradients, flat."""

BLOCK = 1 << 17
"""Connections of a block: half a MiB of gradients. What an update makes of one takes four MiB at most."""
SAMPLE = 1 << 16
"""Connections of a sample, from which an update guesses which gradients are large."""
GRIDS, STRIDE = 64, 27
"""The grids of a sample; and a step that is prime to their number, by which columns are paired with other lines."""


class Gradient(Protocol):
    """The gradient of a layer, as an update reads it.

    Attributes:
        active: that of the active weights, in storage order.
    """

    @property
    def active(self) -> Floats: ...

    def blocks(self) -> Iterator[Block]:
        """The dense gradient by ascending flat index."""

    def sample(self) -> tuple[Flat, Floats]:
        """At most `SAMPLE` numbers of the dense gradient, from all over the layer, after their flat indices."""


class Whole:
    """A dense gradient that exists."""

    def __init__(self, active: Floats, dense: Floats) -> None:
        """``dense`` is flat, and ``active`` has its active numbers in storage order."""
        self.active, self._dense = active, dense

    def blocks(self) -> Iterator[Block]:
        for start in range(0, self._dense.size, BLOCK):
            yield start, self._dense[start : start + BLOCK]

    def sample(self) -> tuple[Flat, Floats]:
        step = -(-self._dense.size // SAMPLE) | 1  # odd, so that it visits all columns
        return np.arange(0, self._dense.size, step, dtype=np.int32), self._dense[::step]


class ActiveOnly:
    """A gradient of which only the active numbers are known."""

    def __init__(self, active: Floats, name: str) -> None:
        self.active, self._name = active, name

    def blocks(self) -> Iterator[Block]:
        raise ValueError(
            f"the gradient of {self._name!r} holds active weights alone, and this step's update reads the dense one: "
            "give what backward returns, or a dense array."
        )

    def sample(self) -> tuple[Flat, Floats]:
        return np.empty(0, np.int32), self.active[:0]


class Products:
    """The dense gradient that inputs and output gradients define: the sum of their products over all samples."""

    def __init__(
        self,
        active: Floats,
        samples: Sequence[tuple[Floats, Floats]],
        *,
        inputs_first: bool,
        kernels: Kernels,
        threads: int = 1,
    ) -> None:
        """The gradient of one step.

        Args:
            active: the gradient of the active weights, in storage order.
            samples: pairs of inputs (cols, batch) and gradients of outputs (rows, batch), in the order in which they
                are added: the uses of the layer, and its micro-batches.
            inputs_first: whether the framework's array is (inputs, outputs).
            kernels: make the products.
            threads: the threads to work with.
        """
        self.active = active
        self._scale = np.float32(1)
        self._pairs: list[Any] = [(x, dy) if inputs_first else (dy, x) for x, dy in samples]
        self._kernels, self._threads = kernels, threads

    def __add__(self, other: Products) -> Products:
        """The gradient of both: of another use of the layer, or of another micro-batch."""
        if self._scale != other._scale:
            raise ValueError("gradients that were scaled by different numbers cannot be added: add them first.")
        both = copy(self)
        both.active, both._pairs = self.active + other.active, [*self._pairs, *other._pairs]
        return both

    def __mul__(self, factor: float) -> Products:
        """The gradient times a number, such as that of clipping, or one over the number of micro-batches."""
        scaled = copy(self)
        scaled.active, scaled._scale = self.active * np.float32(factor), self._scale * np.float32(factor)
        return scaled

    def blocks(self) -> Iterator[Block]:
        if not self._pairs:
            return
        lines, others = self._shape
        step = max(1, BLOCK // max(others, 1))
        for first in range(0, lines, step):
            yield first * others, self._sum(slice(first, min(first + step, lines)), slice(0, others)).reshape(-1)

    def sample(self) -> tuple[Flat, Floats]:
        """The numbers where some lines cross some columns, in small grids that together touch lines and columns of all
        parts: the gradients of one line, or of one column, can be large or small together."""
        if not self._pairs:
            return np.empty(0, np.int32), self.active[:0]
        shape = self._shape
        steps = [self._step(size) for size in shape]
        grids, flat, values = min(GRIDS, max(steps)), [], []
        for grid in range(grids):
            starts = grid * steps[0] // grids, grid * STRIDE % grids * steps[1] // grids
            lines, others = (slice(*edges) for edges in zip(starts, shape, steps, strict=True))
            flat.append(_crossings(lines, others, shape[1]))
            values.append(self._sum(lines, others).reshape(-1))
        return np.concatenate(flat), np.concatenate(values)

    def _step(self, size: int) -> int:
        """The step from one line or column of a grid to the next one."""
        return max(1, -(-size // math.isqrt(SAMPLE // GRIDS)))

    @property
    def _shape(self) -> tuple[int, int]:
        """The lines of the layer's array, and the numbers of a line."""
        left, right = self._pairs[0]
        return left.shape[0], right.shape[0]

    def _sum(self, lines: slice, others: slice) -> Floats:
        """The numbers of some lines, and in each of some places."""
        pairs = [tuple(map(np.ascontiguousarray, (left[lines], right[others]))) for left, right in self._pairs]
        total = np.zeros([array.shape[0] for array in pairs[0]], np.float32)
        for left, right in pairs:
            self._kernels.add_products(left, right, total, threads=self._threads)
        if self._scale != 1:
            total *= self._scale
        return total


def _crossings(lines: slice, others: slice, width: int) -> Flat:
    """The flat indices where some lines of an array cross some columns."""
    first, second = (np.arange(own.start, own.stop, own.step, dtype=np.int32) for own in (lines, others))
    return np.add.outer(first * np.int32(width), second).reshape(-1)
