"""Bugs of comparisons within a unit, and of floors."""

from __future__ import annotations

from typing import Any

import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.parts import units
from rigl_core.step import pools, update
from rigl_core.testing.properties import test_methods


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL by outputs")
def outputs_taken_for_inputs(patch: pytest.MonkeyPatch) -> None:
    other = {"output": "input", "input": "output"}
    original: Any = units.connections_of
    patch.setattr(pools, "connections_of", lambda side, layer, parameter: original(other[side], layer, parameter))


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL by inputs, a floor")
def scores_not_compared_within_units(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pools, "relative", lambda scores, groups, *, xp: scores)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SET, a floor")
def floor_forgotten_when_dropping(patch: pytest.MonkeyPatch) -> None:
    without_floor(patch, "best_with_floor")


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SET, a floor")
def floor_forgotten_when_growing(patch: pytest.MonkeyPatch) -> None:
    without_floor(patch, "grown_with_floor")


@caught_by(test_methods.test_initial_topologies_are_the_oracles)
def floor_forgotten_at_the_start(patch: pytest.MonkeyPatch) -> None:
    without_floor(patch, "best_with_floor")


def without_floor(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let a choice forget the floor that it is given."""
    original: Any = getattr(units, name)

    def choose(scores: Any, k: Any, floor: int, groups: Any, **options: Any) -> Any:
        return original(scores, k, 0 * floor, groups, **options)

    patch.setattr(update, name, choose)
