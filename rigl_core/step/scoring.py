"""Scores that are computed part by part, while `rigl_core.step.selection` reads them.

Only the choice has to be the same as that of the definition; the numbers may differ if they are faster to compute. For
example, the definition's magnitude of NaN or of a subnormal number is 0. `Magnitudes` gives plain absolute values, and
its ``floor`` tells which of them count as 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import numpy_namespace
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace
from rigl_core.parts.criteria import Criterion
from rigl_core.step import selection
from rigl_core.step.workers import Mask, Values

Indices = npt.NDArray[np.intp]


def scores_of(criterion: Criterion, connections: Connections) -> Scores:
    """A criterion's scores of some connections, to be read part by part.

    Args:
        criterion: the criterion.
        connections: flat NumPy arrays, or objects that give a NumPy array when they are indexed with a part.
    """

    def score(part: slice | Indices) -> Values:
        values: Values = criterion.score(connections[part], host_namespace)
        return values

    if criterion.magnitude_of is None:
        return Scores(score)
    values = getattr(connections, criterion.magnitude_of)
    dtype = values[:0].dtype  # the dtype of the parts: bfloat16 numbers of PyTorch come as float32
    return Scores(score) if dtype.itemsize == 2 else Magnitudes(values, _largest_subnormal(dtype))


class Scores:
    """The scores of one layer.

    Attributes:
        floor: numbers up to ``floor`` count as a score of 0. Here it is -1, below all scores, so it changes none.
    """

    floor: Any = -1

    def __init__(self, score: Callable[[slice | Indices], Values]) -> None:
        self._score = score

    def look(self, part: slice | Indices) -> Values:
        """Numbers with the same order as the scores.

        16-bit floats become int16 numbers with the same bits, since NumPy compares these floats slowly. For floats of
        at least 0, the order of the bits is the order of the floats. The sign bit is cleared, so that -0 equals 0.

        Args:
            part: a range of connections, or some flat indices.
        """
        scores = self._score(part)
        if scores.dtype.itemsize == 2 and scores.dtype.kind not in "iu":
            return scores.view(np.int16) & np.int16(0x7FFF)
        return scores


class Magnitudes(Scores):
    """Scores that are plain absolute values, in 32 bits or more: one operation instead of four.

    NaN and subnormal numbers stay as they are, but count as a score of 0: subnormal numbers are not above ``floor``,
    and comparisons treat NaN as not above any number. (16-bit floats cannot use this class: they are compared by their
    bits, and the bits of NaN are above all others.)
    """

    def __init__(self, values: Values, floor: Any) -> None:
        self.floor = floor
        self._values = values

    def look(self, part: slice | Indices) -> Values:
        """The absolute values of a part."""
        magnitudes: Values = np.abs(self._values[part])
        return magnitudes


@functools.cache
def _largest_subnormal(dtype: np.dtype[Any]) -> Any:
    # Computed from its bits, since some threads of TensorFlow treat subnormal numbers as zeros in arithmetic.
    normal = np.full(1, np.finfo(dtype).smallest_normal, dtype)  # older NumPy versions would make an int64 of a scalar
    return (normal.view(f"i{dtype.itemsize}") - 1).view(dtype)[0]


_ZERO = bytes(16)


def _zeros_like(x: Array, /) -> Array:
    """Zeros that take no memory; `_where` reads them."""
    return np.ndarray(x.shape, x.dtype, _ZERO, strides=(0,) * x.ndim)


def _where(condition: Array, x: Array, y: Array, /) -> Array:
    """The result of `numpy.where`; ``x`` itself, without a copy, if the result would have the same bits."""
    needed = not condition.all() and bool(np.greater(_differ(x, y), condition).any())
    return np.where(condition, x, y) if needed else x


def _differ(x: Values, y: Values) -> Mask:
    """True where the bits differ. Comparing numbers would not do: TensorFlow's threads take subnormals for zeros."""
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    differ: Mask = x.view(unsigned) != y.view(unsigned)
    return differ


host_namespace: Namespace = SimpleNamespace(
    **{**vars(numpy_namespace), "zeros_like": _zeros_like, "where": _where, "best_of": selection.best_of}
)
"""NumPy's operations, changed to compute scores faster; `rigl_core.step.selection` makes the choices."""
