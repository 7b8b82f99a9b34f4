"""The choice of connections at memory speed, for arrays in host memory.

`rigl_core.arrays.topology` says which connections an update chooses; this file finds the same ones, bit for bit,
without sorting a layer or copying it. Two bounds, guessed from a random sample, tell at a glance about almost all
connections: those above ``high`` are chosen, those up to ``low`` are not, and only the few between them are sorted.

The layer is read in parts that fit in a processor's cache. Criteria look at connections one by one, so they can
score each part when its turn comes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from rigl_core.step.scoring import Indices, Mask, Scores, Values

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_T = TypeVar("_T")
_R = TypeVar("_R")

PART = 1 << 17
"""Connections read at a time: few enough for the cache, enough for threads not to wait for Python."""
LARGE = 1 << 18
"""Connections that are worth a thread."""
SMALL = 1 << 15
"""Connections that are sorted all at once: with so few, the calls cost more than the work."""
SAMPLE = 1 << 13
"""Connections, at most, that the bounds are guessed from: they leave one or two in a hundred to compare."""


def two_at_a_time(move: Callable[[_T], _R], layers: Iterable[_T], size_of: Callable[[_T], int]) -> list[_R]:
    """What ``move`` gives for each layer, from the largest on: for large ones in two threads, then for the others.

    NumPy lets go of Python's lock while it works on an array; with small ones threads would do little else than pass
    it to each other. More threads would share the same memory and hold more temporary arrays; these end with the call.

    Args:
        move: works on a layer.
        layers: whatever it takes.
        size_of: the connections of a layer.
    """
    ordered = sorted(layers, key=size_of, reverse=True)
    large = [layer for layer in ordered if size_of(layer) >= LARGE]
    given: list[_R] = []
    if large:
        with _two_threads() as threads:
            given += threads.map(move, large)  # also raises what a thread raised
    return given + [move(layer) for layer in ordered[len(large) :]]


def updated_mask(drop_scores: Scores, grow_scores: Scores | None, mask: Mask, keep: int, grow: int) -> Mask:
    """The topology after one update: `rigl_core.arrays.topology.updated_mask`, given scores part by part.

    Args:
        drop_scores: how much each active connection is worth keeping.
        grow_scores: how much each connection promises; None to grow nothing.
        mask: flat, the current topology.
        keep: active count minus the drop count.
        grow: the drop count.
    """
    kept = best_of(mask, drop_scores, keep)
    if grow_scores is None:
        return kept
    # In place: new memory takes as long as what is done with it, and the result must not lie beyond what is freed.
    others = np.logical_not(kept, out=kept)
    grown = best_of(others, grow_scores, grow)
    return np.equal(others, grown, out=others)  # neither: kept; both: grown


def best_of(eligible: Mask, scores: Scores, k: int) -> Mask:
    """The mask of the ``k`` largest scores among the eligible; among equals the lower flat index wins.

    Args:
        eligible: flat, which connections can be chosen.
        scores: of any connections.
        k: how many, from 0 to the number of eligible connections.
    """
    count = int(np.count_nonzero(eligible))
    if not 0 <= k <= count:
        raise ValueError(f"k is {k}: only {count} connections are eligible.")
    if k in (0, count):
        return eligible.copy() if k else np.zeros_like(eligible)
    if eligible.size > SMALL and (found := _between_bounds(eligible, scores, k, k / count)) is not None:
        return found
    chosen, among = np.zeros_like(eligible), np.flatnonzero(eligible)
    chosen[among[_largest(_seen(scores, among), k)]] = True
    return chosen


def all_finite(arrays: Iterable[Values]) -> bool:
    """Whether no number is NaN or infinite."""

    def finite(array: Values) -> bool:
        flat = array.reshape(-1)
        return all(np.isfinite(flat[part]).all() for part in _parts(flat.size))

    return all(two_at_a_time(finite, arrays, np.size))


def any_outside(arrays: Iterable[Values], masks: Iterable[Mask]) -> bool:
    """Whether any number outside its array's mask is not 0.

    Args:
        arrays: of any shapes.
        masks: of the same ones, contiguous in C order.
    """

    def outside(pair: tuple[Values, Mask]) -> bool:
        values, inside = pair[0].reshape(-1), pair[1].reshape(-1)
        return any(((values[part] != 0) > inside[part]).any() for part in _parts(inside.size))

    return any(two_at_a_time(outside, zip(arrays, masks, strict=True), lambda pair: pair[0].size))


def zero_outside(values: Values, mask: Mask) -> None:
    """Set the values outside the mask to +0, in place; those inside stay bit for bit.

    Args:
        values: floats of the mask's shape.
        mask: contiguous in C order.
    """
    if not values.flags.c_contiguous:
        np.copyto(values, 0, where=~mask)
        return
    bits = values.reshape(-1).view(f"i{values.itemsize}")
    np.multiply(bits, mask.reshape(-1).view(np.int8), out=bits)


def _two_threads() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # as long to import as a fifth of NumPy

    return ThreadPoolExecutor(2)


def _between_bounds(eligible: Mask, scores: Scores, k: int, share: float) -> Mask | None:
    """What `best_of` gives; None if the sample misled, once in ten thousand times."""
    low, high = _bounds(eligible, scores, share)
    chosen, between = _split(eligible, scores, low, high)
    room = k - int(np.count_nonzero(chosen))
    if 0 <= room <= between.size:
        chosen[between[_largest(scores.look(between), room)]] = True
        return chosen
    if room < 0:
        return None
    # More connections have exactly the score ``low`` than a sample can tell apart: zero gradients, usually.
    tied = _first_with(low, eligible, scores, room - between.size)
    if between.size + tied.size < room:
        return None
    chosen[between] = chosen[tied] = True
    return chosen


def _largest(values: Values, k: int) -> Mask:
    """The mask of the ``k`` largest; among equals the first ones: `topology.top_k_mask`."""
    if k == 0:
        return np.zeros(values.size, np.bool_)
    # Not np.partition, which takes ten times as long where most are equal.
    threshold = np.sort(values)[values.size - k]
    largest: Mask = values > threshold
    (tied,) = np.nonzero(values == threshold)
    largest[tied[: k - np.count_nonzero(largest)]] = True
    return largest


def _bounds(eligible: Mask, scores: Scores, share: float) -> tuple[Any, Any]:
    """Two scores with the ``share`` largest beginning between them, by all odds."""
    drawn = (_shares(SAMPLE)[: eligible.size // 32] * eligible.size).astype(np.intp)
    sample = np.sort(_seen(scores, drawn[eligible[drawn]]))
    rank = share * sample.size
    margin = 4 * (rank * (1 - share)) ** 0.5 + 2  # four standard deviations of a binomial count
    low, high = sample.size - 1 - int(rank + margin), sample.size - 1 - int(rank - margin)
    return sample[low] if low >= 0 else scores.least, sample[high] if high < sample.size else np.inf


@functools.cache
def _shares(count: int) -> npt.NDArray[np.float64]:
    """Random numbers from 0 to 1, always the same."""
    return np.random.default_rng(0).random(count)


def _split(eligible: Mask, scores: Scores, low: Any, high: Any) -> tuple[Mask, Indices]:
    """Which eligible connections score above ``high``; and where the others above ``low`` are."""
    chosen, others = np.empty_like(eligible), np.empty_like(eligible)
    for part in _parts(eligible.size):
        values = scores.look(part)
        np.greater(values, high, out=chosen[part])
        np.greater(values, low, out=others[part])
    others ^= chosen
    others &= eligible
    chosen &= eligible
    return chosen, np.flatnonzero(others)


def _first_with(score: Any, eligible: Mask, scores: Scores, count: int) -> Indices:
    """The flat indices of the first ``count`` eligible connections with exactly this score, or of all there are."""
    found = [np.empty(0, np.intp)]
    for part in _parts(eligible.size):
        equal = np.flatnonzero((_seen(scores, part) == score) & eligible[part])[:count]
        found.append(equal + part.start)
        count -= equal.size
        if count == 0:
            break
    return np.concatenate(found)


def _seen(scores: Scores, part: slice | Indices) -> Values:
    """Scores in their order, with one number for all that are not above the least."""
    seen: Values = np.fmax(scores.look(part), scores.least)
    return seen


def _parts(size: int) -> list[slice]:
    return [slice(start, min(start + PART, size)) for start in range(0, size, PART)]
