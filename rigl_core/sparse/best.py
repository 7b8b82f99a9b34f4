"""The best connections of a layer, found without holding the scores of all of it (contract: T3)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rigl_core.arrays.numpy_namespace import kth_largest
from rigl_core.sparse.places import Flat
from rigl_core.step.workers import Mask, Values


def best_of(scores: Values, k: int, flat: npt.NDArray[np.integer]) -> Mask:
    """The mask of the ``k`` largest scores; among equals those with the lowest flat index.

    Args:
        scores: without NaN, in any order.
        k: the number to choose, from 0 to the number of scores.
        flat: the flat index of each.
    """
    if k <= 0:
        return np.zeros(scores.size, np.bool_)
    threshold = kth_largest(scores, k)
    chosen: Mask = scores > threshold
    (tied,) = np.nonzero(scores == threshold)
    room = k - int(np.count_nonzero(chosen))
    if room < tied.size:
        tied = tied[np.argpartition(flat[tied], room - 1)[:room]]
    chosen[tied] = True
    return chosen


class Best:
    """The ``k`` best of all connections that were added, which come by ascending flat index.

    It holds at most twice as many.

    Attributes:
        size: the number that it holds.
    """

    def __init__(self, k: int, *, with_values: bool = False, floor: float | None = None) -> None:
        """Make an empty choice.

        Args:
            k: the number to choose.
            with_values: whether a value of each is to be known at the end.
            floor: only scores above it are looked at, so that fewer have to be held. If `size` stays below ``k`` then,
                the choice is not known.
        """
        self._k, self._with_values, self._least = k, with_values, floor
        self._held: tuple[Values, ...] = ()
        self.size = 0

    def add(self, start: int, scores: Values, values: Values, *, barred: npt.NDArray[np.integer]) -> None:
        """Add connections that lie one after the other.

        Args:
            start: the flat index of the first.
            scores: without NaN.
            values: their values.
            barred: the positions of those that cannot be chosen.
        """
        if not self._k:
            return
        better = np.ones(scores.size, np.bool_) if self._least is None else scores > self._least
        better[barred] = False
        (places,) = np.nonzero(better)
        if places.size > self._k:
            places = places[best_of(scores[places], self._k, places)]
        found = ((places + start).astype(np.int32), scores[places], *([values[places]] if self._with_values else []))
        if not self._held:
            self._held = tuple(np.empty(2 * self._k, own.dtype) for own in found)
        if self.size + places.size > 2 * self._k:
            self._cut()
        for held, own in zip(self._held, found, strict=True):
            held[self.size : self.size + places.size] = own
        self.size += places.size

    def chosen(self) -> tuple[Flat, Values]:
        """The flat indices of the best, ascending, and their values, if these are to be known; else zeros.

        They are fewer than ``k`` only if fewer could be chosen.
        """
        if self.size > self._k:
            self._cut()
        if not self._held:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        flat, _, *values = (held[: self.size] for held in self._held)
        return flat, values[0] if values else np.zeros(flat.size, np.float32)

    def _cut(self) -> None:
        """Keep the best; from now on only higher scores count, since later connections lose a tie."""
        flat, scores, *_ = (held[: self.size] for held in self._held)
        best = best_of(scores, self._k, flat)
        for held in self._held:
            held[: self._k] = held[: self.size][best]
        self.size = self._k
        self._least = scores[: self._k].min()
