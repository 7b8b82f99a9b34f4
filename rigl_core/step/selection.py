"""A fast choice of a layer's k largest scores, for arrays in the host's memory.

`best_of` finds the same mask, bit for bit, as the definition in `rigl_core.arrays.topology`, without sorting or copying
the layer. For example, to keep the 100 largest of 1,000 scores:

1. A random sample of the scores shows that the 100th largest score almost certainly lies between 0.70 (``low``) and
   0.75 (``high``).
2. One pass over the layer finds 92 scores above ``high``, which are chosen, and 20 other scores above ``low``.
3. Only these 20 are sorted; the 8 largest of them complete the choice.

The layer is read in parts that fit in a processor's cache. Criteria look at connections one by one, so each part is
scored when it is read (`rigl_core.step.scoring`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rigl_core.step.workers import Mask, Values, parts_of

if TYPE_CHECKING:
    from rigl_core.step.scoring import Indices, Scores

SMALL = 1 << 15
"""Layers up to this size are sorted whole: with few connections, the calls would cost more than the work."""
SPAN = 1 << 20
"""The connections whose marks are held at a time: fewer take less memory and more calls."""
SAMPLE = 1 << 13
"""The largest sample for the bounds. It leaves one or two of a hundred connections between them."""


def best_of(scores: Scores, k: int, *, among: Mask | None = None, outside: Mask | None = None) -> Mask:
    """See `rigl_core.arrays.topology.best_of`. Arrays are flat, and scores are read part by part.

    Raises:
        ValueError: if there are fewer than ``k`` connections to choose from.
    """
    eligible = _Eligible(among, outside)
    if not 0 <= k <= eligible.count:
        raise ValueError(f"k is {k}: only {eligible.count} connections are eligible.")
    if k in (0, eligible.count):
        everything = eligible[slice(None)]
        return everything.copy() if k else np.zeros_like(everything)
    if eligible.size > SMALL and (found := _between_bounds(eligible, scores, k)) is not None:
        return found
    among_these = np.flatnonzero(eligible[slice(None)])
    chosen = np.zeros(eligible.size, np.bool_)
    chosen[among_these[_largest(_floored(scores, among_these), k)]] = True
    return chosen


class _Eligible:
    """The connections that can be chosen: those inside one mask, or those outside another one.

    Attributes:
        size: the number of connections of the layer.
        count: the number of connections that can be chosen.
    """

    def __init__(self, among: Mask | None, outside: Mask | None) -> None:
        self._among, self._outside = among, outside
        mask = among if outside is None else outside
        assert mask is not None
        self.size = mask.size
        true = int(np.count_nonzero(mask))
        self.count = true if outside is None else mask.size - true

    def __getitem__(self, part: slice | Indices) -> Mask:
        """A bool array: which connections of a part can be chosen."""
        if self._among is not None:
            return self._among[part]
        assert self._outside is not None
        return ~self._outside[part]

    def restrict(self, chosen: Mask, part: slice) -> None:
        """Set a part's mask to false, in place, for all connections that cannot be chosen."""
        if self._among is not None:
            np.logical_and(chosen, self._among[part], out=chosen)
        else:
            assert self._outside is not None
            np.greater(chosen, self._outside[part], out=chosen)


def _between_bounds(eligible: _Eligible, scores: Scores, k: int) -> Mask | None:
    """The result of `best_of` from bounds of a sample; None if the bounds were wrong, about once in 10,000 times."""
    low, high = _bounds(eligible, scores, k / eligible.count)
    chosen, between = _split(eligible, scores, low, high)
    room = k - int(np.count_nonzero(chosen))
    if 0 <= room <= between.size:
        chosen[between[_largest(scores.look(between), room)]] = True
        return chosen
    if room < 0:
        return None
    # Many connections have exactly the score ``low`` (often zero gradients): the first of them complete the choice.
    tied = _first_with(low, eligible, scores, room - between.size)
    if between.size + tied.size < room:
        return None
    chosen[between] = chosen[tied] = True
    return chosen


def _largest(values: Values, k: int) -> Mask:
    """The mask of the ``k`` largest values; among equals the first ones. A faster `topology.top_k_mask`."""
    if k == 0:
        return np.zeros(values.size, np.bool_)
    # np.partition would take ten times as long if most values are equal.
    threshold = np.sort(values)[values.size - k]
    largest: Mask = values > threshold
    (tied,) = np.nonzero(values == threshold)
    largest[tied[: k - np.count_nonzero(largest)]] = True
    return largest


def _bounds(eligible: _Eligible, scores: Scores, share: float) -> tuple[Any, Any]:
    """Two numbers, low and high: the smallest of the ``share`` largest scores almost certainly lies between them."""
    drawn = (_uniform(SAMPLE)[: eligible.size // 32] * eligible.size).astype(np.intp)
    sample = np.sort(_floored(scores, drawn[eligible[drawn]]))
    rank = share * sample.size
    margin = 4 * (rank * (1 - share)) ** 0.5 + 2  # four standard deviations of a binomial count
    low, high = sample.size - 1 - int(rank + margin), sample.size - 1 - int(rank - margin)
    return sample[low] if low >= 0 else scores.floor, sample[high] if high < sample.size else np.inf


@functools.cache
def _uniform(count: int) -> npt.NDArray[np.float64]:
    """Random numbers from 0 to 1, the same ones in every call."""
    return np.random.default_rng(0).random(count)


def _split(eligible: _Eligible, scores: Scores, low: Any, high: Any) -> tuple[Mask, Indices]:
    """The mask of eligible connections above ``high``, and the flat indices of the others above ``low``."""
    chosen, between = np.empty(eligible.size, np.bool_), [np.empty(0, np.intp)]
    for span in parts_of(eligible.size, SPAN):
        above = chosen[span]
        others = np.empty_like(above)
        for part in parts_of(others.size):
            values = scores.look(slice(span.start + part.start, span.start + part.stop))
            np.greater(values, high, out=above[part])
            np.greater(values, low, out=others[part])
        others ^= above
        eligible.restrict(others, span)
        eligible.restrict(above, span)
        between.append(np.flatnonzero(others) + span.start)
    return chosen, np.concatenate(between)


def _first_with(score: Any, eligible: _Eligible, scores: Scores, count: int) -> Indices:
    """The flat indices of the first ``count`` eligible connections with exactly this score, or of all if fewer."""
    found = [np.empty(0, np.intp)]
    for part in parts_of(eligible.size):
        equal = np.flatnonzero((_floored(scores, part) == score) & eligible[part])[:count]
        found.append(equal + part.start)
        count -= equal.size
        if count == 0:
            break
    return np.concatenate(found)


def _floored(scores: Scores, part: slice | Indices) -> Values:
    """The numbers of `Scores.look`, with ``floor`` in place of all numbers that count as a score of 0."""
    floored: Values = np.fmax(scores.look(part), scores.floor)
    return floored
