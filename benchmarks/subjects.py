"""What the updates are measured on: the kernels of ResNet-50, at any width, with the same numbers for everyone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]

SPARSITY = 0.9
DROP_FRACTION = 0.3


@dataclass(frozen=True)
class Kernels:
    """Layers by name and shape: plain data, which also a process without this project can read.

    Attributes:
        shapes: sizes of each array, (out, in, height, width).
        momentum: whether the optimizer holds one more number for each weight.
    """

    shapes: Shapes
    momentum: bool = False

    @classmethod
    def of(cls, shapes: Sequence[tuple[str, Sequence[int]]], momentum: bool = False) -> Kernels:
        """The kernels, from what JSON made of them."""
        return cls(tuple((name, tuple(shape)) for name, shape in shapes), momentum)

    @property
    def sizes(self) -> list[int]:
        """Weights of each layer."""
        return [int(np.prod(shape)) for _, shape in self.shapes]

    def gradients(self) -> dict[str, Array]:
        """Normal numbers."""
        rng = np.random.default_rng(0)
        return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in self.shapes}


def weights_like(gradient: Array) -> Array:
    """A view of a gradient that passes for weights: read backwards, it tells nothing of the gradient."""
    return gradient.reshape(-1)[::-1].reshape(gradient.shape)
