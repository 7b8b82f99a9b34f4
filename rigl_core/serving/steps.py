"""The steps of a network without products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rigl_core.serving.step import Arrays, Bare, Settings, check_inputs, floats
from rigl_core.sparse.index import Floats


def _sigmoid(x: Floats, _: float) -> Floats:
    half = np.float32(0.5)
    result: Floats = half + half * np.tanh(half * x)  # exp of a large number would overflow
    return result


ACTIVATIONS: dict[str, Callable[[Floats, float], Floats]] = {
    "relu": lambda x, _: np.maximum(x, np.float32(0)),
    "leaky_relu": lambda x, slope: np.where(x > 0, x, x * np.float32(slope)),
    "tanh": lambda x, _: np.tanh(x),
    "sigmoid": _sigmoid,
    "silu": lambda x, slope: x * _sigmoid(x, slope),
}


@dataclass(frozen=True)
class Activation(Bare):
    """A function of each number.

    Attributes:
        name: ``"relu"``, ``"leaky_relu"``, ``"tanh"``, ``"sigmoid"`` or ``"silu"``.
        slope: of leaky_relu below 0; the others have none.
    """

    kind: ClassVar[str] = "activation"
    name: str
    slope: float = 0.01

    def __post_init__(self) -> None:
        if self.name not in ACTIVATIONS:
            raise ValueError(f"name is {self.name!r}: the activations are {', '.join(ACTIVATIONS)}.")

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        return ACTIVATIONS[self.name](x, self.slope)

    @property
    def settings(self) -> Settings:
        return {"name": self.name, "slope": float(self.slope)}


class Affine(Bare):
    """Each feature or channel times a number, plus another one: a batch normalization that has learned.

    Attributes:
        scale: float32 (features,).
        shift: float32 (features,).
    """

    kind: ClassVar[str] = "affine"

    def __init__(self, scale: npt.ArrayLike, shift: npt.ArrayLike) -> None:
        self.scale = floats("scale", scale, np.shape(scale)[:1])
        self.shift = floats("shift", shift, self.scale.shape)

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        check_inputs(self, x, self.scale.size, 4 if x.ndim == 4 else 2)
        each = (-1, 1, 1) if x.ndim == 4 else (-1, 1)
        return x * self.scale.reshape(each) + self.shift.reshape(each)

    @property
    def arrays(self) -> Arrays:
        return {"scale": self.scale, "shift": self.shift}


@dataclass(frozen=True)
class Flatten(Bare):
    """Channels, height and width become features, in this order."""

    kind: ClassVar[str] = "flatten"

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        return x if x.ndim == 2 else x.reshape(x.shape[0], -1).T


@dataclass(frozen=True)
class GlobalAverage(Bare):
    """The mean of each channel, whose height and width become 1."""

    kind: ClassVar[str] = "global_average"

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        check_inputs(self, x, None, 4)
        mean: Floats = x.mean((2, 3), dtype=np.float32, keepdims=True)
        return mean


@dataclass(frozen=True)
class _Pool(Bare):
    """One number for each window of a channel.

    Attributes:
        size: the height and width of a window.
        stride: the steps from one window to the next one, downwards and to the right.
    """

    size: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        for name in ("size", "stride"):
            pair = tuple(getattr(self, name))
            if len(pair) != 2 or not all(isinstance(each, int) and each >= 1 for each in pair):
                raise ValueError(f"{name} is {pair}: it must be two whole numbers of at least 1.")
            object.__setattr__(self, name, pair)

    def _windows(self, x: Floats) -> Iterator[Floats]:
        """For each place in a window, the numbers at this place in all windows."""
        height, width = (
            (length - size) // stride + 1
            for length, size, stride in zip(x.shape[2:], self.size, self.stride, strict=True)
        )
        down, right = self.stride
        for i in range(self.size[0]):
            for j in range(self.size[1]):
                yield x[:, :, i : i + down * height : down, j : j + right * width : right]

    @property
    def settings(self) -> Settings:
        return {"size": list(self.size), "stride": list(self.stride)}


class MaxPool(_Pool):
    """The largest number of each window."""

    kind: ClassVar[str] = "max_pool"

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        check_inputs(self, x, None, 4)
        first, *others = self._windows(x)
        largest = first.copy()
        for other in others:
            np.maximum(largest, other, out=largest)
        return largest


class AveragePool(_Pool):
    """The mean of each window."""

    kind: ClassVar[str] = "average_pool"

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        check_inputs(self, x, None, 4)
        first, *others = self._windows(x)
        total = first.copy()
        for other in others:
            total += other
        return total / np.float32(self.size[0] * self.size[1])
