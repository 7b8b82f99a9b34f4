"""Scores as `rigl_core.selection` reads them: those of criteria, at less cost where the choice is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.connections import Connections
from rigl_core.criteria import Criterion
from rigl_core.namespace import Array, Namespace, NumPyNamespace

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]
Scores = Callable[[slice | Indices], Values]
"""The scores of a range of connections, or of those with these flat indices: >= 0, without NaN, of one dtype."""


def scores_of(criterion: Criterion, connections: Connections) -> Scores:
    """A criterion's scores of these connections."""

    def scores(part: slice | Indices) -> Values:
        values: Values = criterion.score(connections[part], scoring_namespace)
        return values

    if criterion.magnitude_of is None:
        return scores
    values = getattr(connections, criterion.magnitude_of)
    return scores if values[:0].itemsize == 2 else Magnitudes(scores, values)


class Magnitudes:
    """Scores that are plain magnitudes, in 32 bits or more: most need a single look instead of four.

    Where a score is 0, `rough` may give NaN or a subnormal number instead. (Of 16-bit floats `sortable` compares the
    bits, where a NaN would be above all.)
    """

    def __init__(self, exact: Scores, values: Values) -> None:
        self._exact = exact
        self._values = values
        self._scratch = np.empty(0)

    def __call__(self, part: slice | Indices) -> Values:
        """The scores as they are."""
        return self._exact(part)

    def rough(self, part: slice) -> Values:
        """The rough scores of a range, until the next call."""
        values = self._values[part]
        if self._scratch.size < values.size:
            self._scratch = np.empty_like(values)
        return np.abs(values, out=self._scratch[: values.size])

    @staticmethod
    def rough_bound(bound: Any) -> Any:
        """The bound, at least 0, that rough scores exceed where the scores exceed this one."""
        # By its bits: some threads of TensorFlow compute with subnormal numbers as with zeros.
        dtype = np.asarray(bound).dtype
        normal = np.full(1, np.finfo(dtype).smallest_normal, dtype)  # a scalar of older NumPys would become an int64
        return bound or (normal.view(f"i{dtype.itemsize}") - 1).view(dtype)[0]


def sortable(scores: Values) -> Values:
    """The scores, or integers in the same order: the bits of 16-bit floats, which NumPy compares slowly.

    Floats of at least 0 are in the order of their bits; a minus zero loses its sign.
    """
    if scores.dtype.itemsize == 2 and scores.dtype.kind not in "iu":
        return scores.view(np.int16) & np.int16(0x7FFF)
    return scores


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
