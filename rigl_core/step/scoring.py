"""Scores as `rigl_core.step.selection` reads them: those of criteria, at less cost where the choice is the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace, NumPyNamespace
from rigl_core.parts.criteria import Criterion

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]


def scores_of(criterion: Criterion, connections: Connections) -> Scores:
    """A criterion's scores of these connections."""

    def score(part: slice | Indices) -> Values:
        values: Values = criterion.score(connections[part], scoring_namespace)
        return values

    if criterion.magnitude_of is None:
        return Scores(score)
    values = getattr(connections, criterion.magnitude_of)
    dtype = values[:0].dtype  # of its parts: PyTorch's bfloat16 numbers come as float32
    return Scores(score) if dtype.itemsize == 2 else Magnitudes(values, _largest_subnormal(dtype))


class Scores:
    """The scores of one layer.

    Attributes:
        least: scores are above it; or else they count as 0, which it is then above itself.
    """

    least: Any = -1

    def __init__(self, score: Callable[[slice | Indices], Values]) -> None:
        self._score = score

    def look(self, part: slice | Indices) -> Values:
        """The scores of a range of connections, or of those with these flat indices.

        Where they are not above `least`, it may give anything else that is not. Of 16-bit floats, which NumPy
        compares slowly, it gives the bits: floats of at least 0 are in the order of these, and a minus zero loses its
        sign.
        """
        scores = self._score(part)
        if scores.dtype.itemsize == 2 and scores.dtype.kind not in "iu":
            return scores.view(np.int16) & np.int16(0x7FFF)
        return scores


class Magnitudes(Scores):
    """Scores that are plain magnitudes, in 32 bits or more: to look at them takes one operation instead of four.

    NaN and subnormal numbers stay, where the score is 0. (As bits, of 16-bit floats, a NaN would be above all.)
    """

    def __init__(self, values: Values, least: Any) -> None:
        self.least = least
        self._values = values

    def look(self, part: slice | Indices) -> Values:
        """The magnitudes."""
        magnitudes: Values = np.abs(self._values[part])
        return magnitudes


@functools.cache
def _largest_subnormal(dtype: np.dtype[Any]) -> Any:
    # By its bits: some threads of TensorFlow compute with subnormal numbers as with zeros.
    normal = np.full(1, np.finfo(dtype).smallest_normal, dtype)  # a scalar of older NumPys would become an int64
    return (normal.view(f"i{dtype.itemsize}") - 1).view(dtype)[0]


_ZERO = bytes(16)


class _ScoringNamespace(NumPyNamespace):
    """For scores only, where a minus zero is worth a zero: nothing is to be done where the choices agree."""

    @staticmethod
    def zeros_like(x: Array, /) -> Array:
        return np.ndarray(x.shape, x.dtype, _ZERO, strides=(0,) * x.ndim)

    @staticmethod
    def where(condition: Array, x: Array, y: Array, /) -> Array:
        if condition.all() or not (_differ(x, y) > condition).any():
            return x
        return np.where(condition, x, y)


def _differ(x: Values, y: Values) -> Mask:
    """Where the bits differ. The numbers do not tell: TensorFlow's threads take subnormal ones for zeros."""
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    differ: Mask = x.view(unsigned) != y.view(unsigned)
    return differ


scoring_namespace: Namespace = _ScoringNamespace()
