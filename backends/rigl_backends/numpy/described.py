"""Arrays that are described and not made, for layers that are to hold their active weights alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Described(np.ndarray[Any, np.dtype[np.float32]]):
    """A float32 array that takes no memory, in the place of a layer's weights until `sparsify`::

        rng = np.random.default_rng(0)
        params = {"fc1": Described((16384, 16384), lambda count: rng.normal(0, 0.01, count))}

    It is read-only, and all its numbers are 0.

    Attributes:
        draw: gives as many initial values as there are active weights.
    """

    draw: Callable[[int], npt.ArrayLike]

    def __new__(cls, shape: Sequence[int], draw: Callable[[int], npt.ArrayLike]) -> Described:
        """Describe an array.

        Args:
            shape: its shape.
            draw: maps a number of values to these, of any float dtype, flat.

        Raises:
            TypeError: if ``draw`` cannot be called.
        """
        if not callable(draw):
            raise TypeError(f"draw is {draw!r}: give a function that maps a number of values to these.")
        own = np.ndarray.__new__(cls, tuple(shape), np.float32, bytes(4), strides=(0,) * len(shape))
        own.draw = draw
        return own

    def values(self, count: int) -> Floats:
        """The initial values of the active weights.

        Raises:
            ValueError: if ``draw`` gives another number of them.
        """
        drawn = np.array(self.draw(count), np.float32)
        if drawn.shape != (count,):
            raise ValueError(f"draw gave values of shape {drawn.shape}: it must give {count} values, flat.")
        return drawn
