"""What a contender offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Update(Protocol):
    """Kernels with their gradients, whose topology moves at every step but the first."""

    def prepare(self) -> None:
        """Give the active weights new values, as a training would; not measured."""

    def move(self) -> None:
        """One step, through the public interface; it is over when this returns."""

    def masks(self) -> Mapping[str, npt.NDArray[np.bool_]]:
        """The topology, by layer name."""

    def copies(self) -> object:
        """Copies of all gradients, in new memory: what a measurement of memory must see."""


class Steps(Protocol):
    """The same model twice, dense and sparse, with the same batch."""

    def dense(self) -> None:
        """One step of the dense training; it is over when this returns."""

    def sparse(self) -> None:
        """The same step of the sparse one."""
