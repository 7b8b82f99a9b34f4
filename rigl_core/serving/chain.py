"""A trained network as a chain of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike

import numpy as np
import numpy.typing as npt

from rigl_core.serving.products import Conv, Dense, Linear
from rigl_core.serving.step import Step
from rigl_core.sparse.index import Floats


class Chain:
    """A trained network, step after step::

        network = Chain([Linear.of(w1, b1), Activation("relu"), Linear.of(w2, b2)])
        y = network(x)
        network.save("network.npz")  # rigl_core.serving.load reads it

    Attributes:
        steps: the steps.
        threads: the threads to compute with.
    """

    def __init__(self, steps: Iterable[Step], *, threads: int = 1) -> None:
        self.steps: Sequence[Step] = tuple(steps)
        self.threads = threads
        for step in self.steps:
            if not hasattr(step, "kind"):
                raise TypeError(f"steps has {step!r}: it must hold steps of rigl_core.serving.")

    def __call__(self, x: npt.ArrayLike) -> Floats:
        """The outputs of a batch.

        Args:
            x: inputs (samples, features) or (samples, channels, height, width), as float32.

        Returns:
            Outputs (samples, features) or (samples, channels, height, width), as float32.

        Raises:
            TypeError: if the inputs have another dtype.
            ValueError: if they have another shape than the steps read.
        """
        inputs = np.asarray(x)
        if inputs.dtype != np.float32:
            raise TypeError(f"x is {inputs.dtype}: give float32 numbers.")
        if inputs.ndim not in (2, 4):
            raise ValueError(
                f"x has shape {inputs.shape}: give (samples, features) or (samples, channels, height, width)."
            )
        y: Floats = inputs.T if inputs.ndim == 2 else inputs
        with np.errstate(over="ignore", invalid="ignore"):  # infinite numbers go on, as they do in the frameworks
            for step in self.steps:
                y = step(y, self.threads)
        return np.ascontiguousarray(y.T if y.ndim == 2 else y)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file that `rigl_core.serving.load` reads. An older file is replaced once the new one is whole."""
        from rigl_core.serving.file import save

        save(self, path)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(_told, self.steps))})"


def _told(step: Step) -> str:
    """A step in short."""
    if isinstance(step, Linear | Conv):
        index = step.index
        density = index.size / max(index.rows * index.cols, 1)
        return f"{step.kind} {index.cols} -> {index.rows}, density {density:.3g}"
    if isinstance(step, Dense):
        return f"dense {step.weight.shape[1]} -> {step.weight.shape[0]}"
    return str(step.settings.get("name", step.kind))
