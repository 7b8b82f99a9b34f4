"""The layers that updates are measured on: ResNet-50's kernels at any width, with the same numbers for everyone."""

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
    """Layers by name and shape, as plain data: a process without this project can read them too.

    Attributes:
        shapes: name and shape (out, in, height, width) of each array.
        momentum: whether the optimizer holds one more number for each weight.
    """

    shapes: Shapes
    momentum: bool = False

    @classmethod
    def of(cls, shapes: Sequence[tuple[str, Sequence[int]]], momentum: bool = False) -> Kernels:
        """The kernels; ``shapes`` may be lists, as JSON gives them."""
        return cls(tuple((name, tuple(shape)) for name, shape in shapes), momentum)

    @property
    def sizes(self) -> list[int]:
        """The number of weights of each layer."""
        return [int(np.prod(shape)) for _, shape in self.shapes]

    def gradients(self) -> dict[str, Array]:
        """Normally distributed float32 numbers for each layer."""
        rng = np.random.default_rng(0)
        return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in self.shapes}


def weights_like(gradient: Array) -> Array:
    """Weights without memory of their own: the gradient read backwards, which has nothing to do with the gradient."""
    return gradient.reshape(-1)[::-1].reshape(gradient.shape)
