"""What a network is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from rigl_core.sparse.index import Floats

Arrays = Mapping[str, npt.NDArray[Any]]
Settings = Mapping[str, Any]


class Step(Protocol):
    """One step of a network. Its inputs and outputs are float32 arrays (features, samples), so that the samples of a
    feature lie side by side, or (samples, channels, height, width).

    Attributes:
        kind: its name in files.
    """

    kind: ClassVar[str]

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        """The outputs.

        Raises:
            ValueError: if the inputs have another number of axes or features than the step reads.
        """

    @property
    def arrays(self) -> Arrays:
        """What a file keeps as arrays."""

    @property
    def settings(self) -> Settings:
        """What a file keeps as JSON."""


class Bare:
    """A step that a file keeps by its kind alone. Others say what is kept besides."""

    @property
    def arrays(self) -> Arrays:
        return {}

    @property
    def settings(self) -> Settings:
        return {}


def check_inputs(step: Step, x: Floats, features: int | None, axes: int) -> None:
    """Refuse inputs of another number of axes or features.

    Args:
        step: what reads them.
        x: the inputs of a step.
        features: what the step needs, or how many channels; None for any number.
        axes: 2 for features, 4 for channels with height and width.
    """
    got = x.shape[1:] if x.ndim == 4 else x.shape[:1]
    if x.ndim == axes and features in (None, got[0]):
        return
    first = ("channels" if axes == 4 else "features") if features is None else str(features)
    wanted = f"({first}, height, width)" if axes == 4 else f"({first},)"
    raise ValueError(f"the step {step.kind!r} reads samples of shape {wanted}, and got some of shape {got}.")


def floats(name: str, array: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    """A read-only float32 array of a shape, as a step holds it.

    Raises:
        ValueError: naming the array.
    """
    own = np.array(array, np.float32, order="C")
    if own.shape != shape:
        raise ValueError(f"{name} has shape {own.shape}: it must be {shape}.")
    own.flags.writeable = False
    return own
