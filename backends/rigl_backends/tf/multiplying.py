"""How the host multiplies inputs of TensorFlow by active weights: those of a matrix here, of images in `images`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rigl_core.adapter import Index, Products, best_kernels

Floats = npt.NDArray[np.float32]
Sample = tuple[Any, ...]
"""What one call adds to the dense gradient, as `Multiplier.gradient` reads it."""


class Multiplier(Protocol):
    """The products of a layer, with TensorFlow's arrays as they are."""

    def forward(self, index: Index, values: Floats, x: Floats, *, threads: int) -> Floats:
        """The outputs of inputs, without the bias."""

    def backward(
        self, index: Index, values: Floats, x: Floats, dy: Floats, *, threads: int
    ) -> tuple[Floats, Floats, Sample]:
        """The gradients of the inputs, and of the active weights; and the sample."""

    def gradient(self, index: Index, active: Floats, samples: Sequence[Sample], *, threads: int) -> Products:
        """The dense gradient of some samples, given that of the active weights."""


class MatrixMultiplier:
    """Inputs are (..., inputs), and outputs (..., outputs)."""

    def forward(self, index: Index, values: Floats, x: Floats, *, threads: int) -> Floats:
        """See `Multiplier`."""
        kernels = best_kernels()
        y = kernels.forward(index, values, _features(x, threads), threads=threads)
        return kernels.transposed(y, threads=threads).reshape(*x.shape[:-1], index.rows)

    def backward(
        self, index: Index, values: Floats, x: Floats, dy: Floats, *, threads: int
    ) -> tuple[Floats, Floats, Sample]:
        """See `Multiplier`."""
        kernels, inputs, outputs = best_kernels(), _features(x, threads), _features(dy, threads)
        dx, gradient = kernels.backward(index, values, inputs, outputs, threads=threads)
        assert dx is not None
        return kernels.transposed(dx, threads=threads).reshape(x.shape), gradient, (inputs, outputs)

    def gradient(self, index: Index, active: Floats, samples: Sequence[Any], *, threads: int) -> Products:
        """See `Multiplier`."""
        return Products(active, samples, inputs_first=True, kernels=best_kernels(), threads=threads)


def _features(array: Floats, threads: int) -> Floats:
    """An array (..., features) as (features, samples)."""
    lines = array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
    return best_kernels().transposed(np.ascontiguousarray(lines), threads=threads)
