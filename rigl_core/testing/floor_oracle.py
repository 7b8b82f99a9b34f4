"""A slow implementation of floors after the contract (rule M11)."""

from __future__ import annotations

from collections.abc import Sequence

from rigl_core.model.layers import Layer
from rigl_core.testing import oracle
from rigl_core.testing.score_oracle import units_of


def with_floor(scores: Sequence[float], among: Sequence[int], count: int, floor: int, layer: Layer) -> set[int]:
    """The ``count`` largest scores; those of the ``floor`` largest of each output come first (rule M11)."""
    eligible = set(among)
    first = {
        i for unit in units_of(layer, "output") for i in oracle.largest(scores, sorted(eligible & set(unit)), floor)
    }
    chosen = oracle.largest(scores, sorted(first), count)
    return chosen | oracle.largest(scores, sorted(eligible - chosen), count - len(chosen))


def floor_grown(scores: Sequence[float], kept: set[int], count: int, floor: int, layer: Layer) -> set[int]:
    """What grows beside ``kept``: first the best connections that an output lacks to its floor (rule M11)."""
    lacking = {
        i
        for unit in units_of(layer, "output")
        for i in oracle.largest(scores, sorted(set(unit) - kept), max(floor - len(kept & set(unit)), 0))
    }
    chosen = oracle.largest(scores, sorted(lacking), count)
    others = sorted(set(range(layer.size)) - kept - chosen)
    return chosen | oracle.largest(scores, others, count - len(chosen))
