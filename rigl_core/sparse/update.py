"""One update of a sparse layer: it reads active values and streamed candidates (contract: A1, T1 to T6).

The result is that of `rigl_core.step.update`, bit for bit, without an array of the layer's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rigl_core.arrays import numpy_namespace, sharing, topology
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.numpy_namespace import kth_largest
from rigl_core.parts.criteria import Criterion
from rigl_core.plan import Counts
from rigl_core.recipe.rule import Rule
from rigl_core.sparse.best import Best, best_of
from rigl_core.sparse.gradients import BLOCK, Block, Gradient
from rigl_core.sparse.index import Floats
from rigl_core.sparse.places import Flat
from rigl_core.step.scoring import host_namespace
from rigl_core.step.workers import Mask

Key = tuple[int, int] | None


@dataclass(frozen=True)
class Found:
    """What an update found, before anything changes.

    Attributes:
        finite: whether all gradients are; if not, the update waits (T5).
        stays: in storage order, which active connections keep their weight and state.
        new: flat indices of the connections that join, ascending.
        values: the weights that these start with.
    """

    finite: bool
    stays: Mask
    new: Flat
    values: Floats


def find(rule: Rule, active: Connections, gradient: Gradient, counts: Counts, size: int) -> Found:
    """The topology after one update of a layer on its own.

    Args:
        rule: the rule that chooses.
        active: the active connections in storage order, with gradient, flat indices and the update's random key.
        gradient: the layer's gradient.
        counts: how many connections it keeps and grows.
        size: how many connections the layer could have.
    """
    kept = _kept(rule, active, int(counts.keep))
    grow = int(counts.grow) if not rule.drop.drops_zeros else kept.size - int(np.count_nonzero(kept))
    barred = np.sort(active.indices[kept])
    floor = _floor(rule, gradient, grow, barred, size)
    growth = _Growth(rule, grow, barred, floor)
    growth.see_all(gradient, size, active)
    if floor is not None and growth.moves and growth.best.size < grow:  # the guess was too high
        growth = _Growth(rule, grow, barred)
        growth.see_all(gradient, size, active)
    if not growth.moves:
        return _nothing(active, finite=growth.finite)
    return _found(rule, active, kept, *growth.best.chosen())


def _nothing(active: Connections, *, finite: bool) -> Found:
    """All stay."""
    return Found(finite, np.ones(active.weight.size, np.bool_), np.empty(0, np.int32), np.empty(0, np.float32))


def first_flat(initial: Criterion, blocks: Iterator[Connections], count: int) -> Flat:
    """The initial topology: the flat indices of the ``count`` best connections, ascending.

    Args:
        initial: gives the scores.
        blocks: all connections of the layer, one block after the other.
        count: the planned number.
    """
    best, start = Best(count), 0
    for block in blocks:
        scores = initial.score(block, host_namespace)
        best.add(start, scores, scores, barred=np.empty(0, np.intp))
        start += scores.size
    return best.chosen()[0]


def _kept(rule: Rule, active: Connections, keep: int) -> Mask:
    """The active connections that an update does not drop."""
    scores = rule.drop.score(active.for_dropping, host_namespace)
    if rule.drop.drops_zeros:  # all connections with score 0 (M4)
        zeros: Mask = scores > 0
        return zeros
    if not rule.drop.by_sign:
        return best_of(scores, keep, active.indices)
    negative = topology.normal(active.weight, xp=numpy_namespace) < 0  # the same share of both (M4)
    parts = np.array([np.count_nonzero(~negative), np.count_nonzero(negative)], np.int32)
    keeps = sharing.in_proportion(np.array([keep], np.int32), parts, xp=numpy_namespace)
    kept = np.zeros(scores.size, np.bool_)
    for part, number in zip((~negative, negative), keeps, strict=True):
        kept[part] = best_of(scores[part], int(number), active.indices[part])
    return kept


def _blocks(rule: Rule, gradient: Gradient, size: int) -> Iterator[Block]:
    """The blocks that an update has to see: of gradients if it reads any, else of zeros."""
    if rule.reads_gradient:
        yield from gradient.blocks()
    elif rule.grow is not None:
        zeros = np.zeros(min(BLOCK, size), np.float32)
        for start in range(0, size, BLOCK):
            yield start, zeros[: size - start]


def _floor(rule: Rule, gradient: Gradient, count: int, barred: Flat, size: int) -> float | None:
    """A guess of a score that somewhat more than ``count`` candidates exceed; None without a good one.

    Args:
        rule: the rule that chooses.
        gradient: the layer's gradient, of which a sample tells.
        count: how many connections grow.
        barred: the flat indices of those that cannot, ascending.
        size: how many connections the layer could have.
    """
    if rule.grow is None or rule.grow.magnitude_of != "gradient" or not count:
        return None
    flat, values = gradient.sample()
    places = np.minimum(np.searchsorted(barred, flat), max(barred.size - 1, 0))
    sample = np.abs(values[barred[places] != flat] if barred.size else values)
    expected = count * sample.size / max(size - barred.size, 1)
    rank = int(1.2 * expected + 4 * expected**0.5)
    if rank >= sample.size:
        return None
    floor = float(kth_largest(sample, rank)[0])
    return floor if floor >= np.finfo(np.float32).smallest_normal else None


def _informs(gradients: Floats) -> bool:
    """Whether any gradient is not 0, as an update sees it."""
    return bool((topology.magnitude(gradients, xp=host_namespace) > 0).any())


class _Growth:
    """The best connections outside those kept.

    Attributes:
        best: what was found so far.
        finite: whether all gradients that were seen are.
        informed: whether any gradient was seen that is not 0 (T6).
    """

    def __init__(self, rule: Rule, count: int, kept: Flat, floor: float | None = None) -> None:
        """Make an empty choice.

        Args:
            rule: the rule that chooses.
            count: how many connections grow.
            kept: the flat indices of those that cannot, ascending.
            floor: only gradients above it are looked at; a normal number.
        """
        count = 0 if rule.grow is None else count
        self.best = Best(count, with_values="gradient" in rule.grown.reads, floor=floor)
        self._rule, self._kept, self._has_floor, self._position = rule, kept, floor is not None, 0
        self.finite, self.informed = True, False

    @property
    def moves(self) -> bool:
        """Whether the layer moves (T5, T6)."""
        return self.finite and self.informed

    def see_all(self, gradient: Gradient, size: int, active: Connections) -> None:
        """Look at all candidates of a layer, block by block, up to a gradient that is not finite."""
        self.informed = _informs(gradient.active)
        for start, block in _blocks(self._rule, gradient, size):
            if self._rule.reads_gradient and not np.isfinite(block).all():
                self.finite = False
                return
            if self._rule.sees_inactive and not self.informed:
                self.informed = _informs(block)
            if self._rule.grow is not None:
                self._see(self._rule.grow, start, block, active.random_key)

    def _see(self, criterion: Criterion, start: int, block: Floats, key: Key) -> None:
        """Look at the candidates of the next block."""
        kept = self._kept[self._position : self._position + block.size]
        kept = kept[: np.searchsorted(kept, self._kept.dtype.type(start + block.size))]
        self._position += kept.size
        if self._has_floor:
            scores = np.abs(block)  # above the floor, magnitudes are plain absolute values
        else:
            indices = None if key is None else np.arange(start, start + block.size, dtype=np.int32)
            scores = criterion.score(Connections(block, block, indices, key), host_namespace)
        self.best.add(start, scores, block, barred=kept - start)


def _found(rule: Rule, active: Connections, kept: Mask, grown: Flat, gradients: Floats) -> Found:
    """What stays and what is new, where connections that are dropped and grown at once keep their values or do not."""
    dropped = np.flatnonzero(~kept)
    places = np.searchsorted(grown, active.indices[dropped])
    again = np.zeros(dropped.size, np.bool_)
    within = places < grown.size
    again[within] = grown[places[within]] == active.indices[dropped][within]
    was_active = np.zeros(grown.size, np.bool_)
    was_active[places[again]] = True
    connections = Connections(np.zeros(grown.size, np.float32), gradients, grown, active.random_key)
    values = rule.grown.values(connections, numpy_namespace)
    if rule.regrown == "reset":
        return Found(True, kept, grown, np.where(was_active, np.zeros_like(values), values))
    stays = kept.copy()
    stays[dropped[again]] = True
    return Found(True, stays, grown[~was_active], values[~was_active])
