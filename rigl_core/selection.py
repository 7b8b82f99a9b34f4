"""The choice of connections at memory speed, for arrays in host memory.

`rigl_core.topology` says which connections an update chooses; this file finds the same ones, bit for
bit, without sorting a layer and without temporary arrays of its size. Two bounds, guessed from a random
sample, tell at a glance about almost all connections: those above ``high`` are chosen, those up to
``low`` are not, and only the few between them are compared exactly.

The layer is read in parts that fit in a processor's cache. Criteria look at connections one by one, so
they can score each part when its turn comes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from rigl_core.namespace import numpy_namespace
from rigl_core.scoring import Indices, Magnitudes, Mask, Scores, Values, sortable
from rigl_core.topology import top_k_mask

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_T = TypeVar("_T")
_R = TypeVar("_R")

PART = 1 << 18
"""Connections read at a time: few enough for the cache, enough for threads not to wait for Python."""
LARGE = 1 << 18
"""Connections that are worth a thread."""
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
    """The topology after one update: `rigl_core.topology.updated_mask`, given scores part by part.

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
    kept = np.logical_not(others, out=others)
    return np.bitwise_or(kept, grown, out=kept)


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
    low, high = _bounds(eligible, scores, k / count)
    if isinstance(scores, Magnitudes) and low >= 0:
        chosen, between, values = _split(eligible, scores.rough, scores.rough_bound(low), scores.rough_bound(high))
    else:
        chosen, between, values = _split(eligible, scores, low, high)
    room = k - int(np.count_nonzero(chosen))
    if 0 <= room <= between.size:
        chosen[between[top_k_mask(values, room, xp=numpy_namespace)]] = True
        return chosen
    if room > 0:
        # More connections have exactly the score ``low`` than a sample can tell apart: zero gradients, usually.
        tied = _first_with(low, eligible, scores, room - between.size)
        if between.size + tied.size == room:
            chosen[between] = chosen[tied] = True
            return chosen
    # The sample misled, once in ten thousand times.
    everything = sortable(scores(slice(0, eligible.size)))
    mask: Mask = top_k_mask(np.where(eligible, everything, -1), k, xp=numpy_namespace)
    return mask


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
    bits, all_or_none = values.reshape(-1).view(f"i{values.itemsize}"), mask.reshape(-1).view(np.int8)
    for part in _parts(mask.size):
        bits[part] &= -all_or_none[part]


def _two_threads() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # as long to import as a fifth of NumPy

    return ThreadPoolExecutor(2)


def _bounds(eligible: Mask, scores: Scores, share: float) -> tuple[Any, Any]:
    """Two scores with the ``share`` largest beginning between them, by all odds."""
    drawn = (_shares(SAMPLE)[: eligible.size // 32] * eligible.size).astype(np.intp)
    sample = sortable(scores(drawn[eligible[drawn]]))
    rank = share * sample.size
    margin = 4 * (rank * (1 - share)) ** 0.5 + 2  # four standard deviations of a binomial count
    low, high = sample.size - 1 - int(rank + margin), sample.size - 1 - int(rank - margin)
    ordered = np.partition(sample, [max(low, 0), min(high, sample.size - 1)]) if sample.size else sample
    return ordered[low] if low >= 0 else -1, ordered[high] if high < sample.size else np.inf


@functools.cache
def _shares(count: int) -> npt.NDArray[np.float64]:
    """Random numbers from 0 to 1, always the same."""
    return np.random.default_rng(0).random(count)


def _positions(mask: Mask) -> Indices:
    """`np.flatnonzero`, three times as fast where few are true: of most groups of eight, none is."""
    whole = mask.size // 8 * 8
    eights = mask[:whole].view(np.uint64)
    (some,) = np.nonzero(eights != 0)
    (within,) = np.nonzero(eights[some].view(np.bool_))
    first = some[within >> 3] * 8 + (within & 7)
    return np.concatenate([first, whole + np.flatnonzero(mask[whole:])]) if whole < mask.size else first


def _split(eligible: Mask, scores: Callable[[slice], Values], low: Any, high: Any) -> tuple[Mask, Indices, Values]:
    """Which eligible connections score above ``high``; and the others above ``low``, as flat indices and scores."""
    chosen, scratch = np.empty_like(eligible), np.empty(min(PART, eligible.size), np.bool_)

    def read(part: slice) -> tuple[Indices, Values]:
        values, here, above = sortable(scores(part)), eligible[part], chosen[part]
        np.greater(values, high, out=above)
        above &= here
        others = np.greater(values, low, out=scratch[: here.size])
        others &= here
        others ^= above
        within = _positions(others)
        return within + part.start, values[within]

    indices, values = zip(*map(read, _parts(eligible.size)), strict=True)
    return chosen, np.concatenate(indices), np.concatenate(values)


def _first_with(score: Any, eligible: Mask, scores: Scores, count: int) -> Indices:
    """The flat indices of the first ``count`` eligible connections with exactly this score, or of all there are."""
    found = [np.empty(0, np.intp)]
    for part in _parts(eligible.size):
        equal = np.flatnonzero((sortable(scores(part)) == score) & eligible[part])[:count]
        found.append(equal + part.start)
        count -= equal.size
        if count == 0:
            break
    return np.concatenate(found)


def _parts(size: int) -> list[slice]:
    return [slice(start, min(start + PART, size)) for start in range(0, size, PART)]
