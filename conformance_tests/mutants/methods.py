"""Bugs of methods in a single layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from conformance_tests.mutants.state import patch_regrown
from rigl_core.arrays import memory, sharing, topology
from rigl_core.parts import criteria, grown
from rigl_core.step import update
from rigl_core.testing.properties import test_methods


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SET as published")
def shares_by_sign_swapped(patch: pytest.MonkeyPatch) -> None:
    original = sharing.in_proportion
    patch.setattr(sharing, "in_proportion", lambda total, weights, *, xp: original(total, weights[::-1], xp=xp))


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SET as published")
def zeros_count_as_negative(patch: pytest.MonkeyPatch) -> None:
    """SET reads only the signs of the result of `topology.normal`, so -1 in place of 0 changes nothing else."""
    original = topology.normal

    def normal(x: Any, *, xp: Any) -> Any:
        values = original(x, xp=xp)
        return np.where(values == 0, np.float32(-1), values)

    patch.setattr(topology, "normal", normal)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "Deep R")
def flipped_signs_kept(patch: pytest.MonkeyPatch) -> None:
    original = criteria.SIGN.score
    patch_score(patch, criteria.SIGN, lambda connections, xp: 1 - original(connections, xp))


@caught_by(test_methods.test_what_grows_draws_a_sign)
def grown_connections_draw_no_sign(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory, "memory_after", lambda before, *_, xp: dict(before))


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SET as published")
def regrown_connections_kept_though_reset(patch: pytest.MonkeyPatch) -> None:
    patch_regrown(patch, "keep")


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, small random")
def new_mask_taken_for_the_survivors(patch: pytest.MonkeyPatch) -> None:
    """The host gives only the new mask, which does not say which connections were dropped and grew again."""
    original = update.chooses_freely

    def chooses_freely(rule: Any, connections: Any) -> bool:
        return original(replace(rule, regrown="keep"), connections)

    patch.setattr(update, "chooses_freely", chooses_freely)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, initial values")
def grown_weights_start_at_zero(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(grown.InitialValues, "values", grown.Zeros.values)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, small random")
def small_random_weights_are_never_negative(patch: pytest.MonkeyPatch) -> None:
    original = grown.SmallRandom.values
    patch.setattr(grown.SmallRandom, "values", lambda self, connections, xp: np.abs(original(self, connections, xp)))


def patch_score(patch: pytest.MonkeyPatch, criterion: criteria.Criterion, score: Any) -> None:
    """Give a criterion another score, also in the recipes that hold it."""
    patch.setitem(vars(criterion), "score", score)
