"""The interface of contenders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Update(Protocol):
    """Kernels with given gradients. Their topology moves at every step except the first."""

    def prepare(self) -> None:
        """Give the active weights new values, as a training would; not measured."""

    def move(self) -> None:
        """Make one step through the public interface, and wait for its end."""

    def masks(self) -> Mapping[str, npt.NDArray[np.bool_]]:
        """The topology, by layer name."""

    def copies(self) -> object:
        """Copies of all gradients, in new memory, which a measurement of memory must see."""


class Steps(Protocol):
    """A model that is trained densely, and a copy that is trained sparsely, with the same batch."""

    def dense(self) -> None:
        """Make one step of the dense training, and wait for its end."""

    def sparse(self) -> None:
        """Make one step of the sparse training, and wait for its end."""


class Train(Protocol):
    """A training of a model, dense or with a recipe, on any device."""

    def __call__(self, *, wait: bool = True) -> None:
        """Make one step, and wait for its end if asked to: in a training only the last step waits."""
