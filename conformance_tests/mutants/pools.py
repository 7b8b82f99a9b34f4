"""Bugs of layers that choose together, and of redistribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.arrays import sharing, topology
from rigl_core.step import update
from rigl_core.testing.properties import test_methods


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, all layers")
def ties_to_the_later_layer(patch: pytest.MonkeyPatch) -> None:
    original = update._chosen_together

    def chosen_together(scores: Sequence[Any], eligible: Sequence[Any], count: Any, xp: Any) -> list[Any]:
        return original(scores[::-1], eligible[::-1], count, xp)[::-1]

    patch.setattr(update, "_chosen_together", chosen_together)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "gradual pruning, all layers")
def global_scope_chosen_per_layer(patch: pytest.MonkeyPatch) -> None:
    def chosen_together(scores: Sequence[Any], eligible: Sequence[Any], count: Any, xp: Any) -> list[Any]:
        sizes = np.array([mask.sum() for mask in eligible], np.int32)
        counts = sharing.in_proportion(np.array([count], np.int32), sizes, xp=xp)
        return [topology.kept_mask(x, m, n, xp=xp) for x, m, n in zip(scores, eligible, counts, strict=True)]

    patch.setattr(update, "_chosen_together", chosen_together)


@caught_by(test_methods.test_initial_topologies_are_the_oracles, "scores")
def given_scores_chosen_per_layer(patch: pytest.MonkeyPatch) -> None:
    global_scope_chosen_per_layer(patch)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SNFS")
def mean_score_over_all_connections(patch: pytest.MonkeyPatch) -> None:
    original = sharing.mean_scores

    def mean_scores(scores: list[Any], masks: list[Any], *, xp: Any) -> Any:
        return original(scores, [np.ones_like(mask) for mask in masks], xp=xp)

    patch.setattr(sharing, "mean_scores", mean_scores)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, redistribution")
def total_score_instead_of_the_mean(patch: pytest.MonkeyPatch) -> None:
    original = sharing.mean_scores

    def mean_scores(scores: list[Any], masks: list[Any], *, xp: Any) -> Any:
        return original(scores, masks, xp=xp) // 64 * np.array([mask.sum() for mask in masks], np.int32)

    patch.setattr(sharing, "mean_scores", mean_scores)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "DSR")
def redistribution_ignores_the_room(patch: pytest.MonkeyPatch) -> None:
    def within_room(total: Any, weights: Any, room: Any, *, xp: Any) -> Any:
        return sharing.in_proportion(total, weights, xp=xp)

    patch.setattr(sharing, "within_room", within_room)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "DSR")
def shared_by_what_was_active(patch: pytest.MonkeyPatch) -> None:
    """By the counts before anything was dropped."""
    original = update._shares

    def shares(recipe: Any, scores: Any, masks: Any, kept: Any, grow: Any, xp: Any) -> Any:
        room = np.array([(~mask).sum() for mask in kept], np.int32)
        before = np.array([mask.sum() for mask in masks], np.int32)
        original(recipe, scores, masks, kept, grow, xp)
        return sharing.within_room(np.array([grow], np.int32), before, room, xp=xp)

    patch.setattr(update, "_shares", shares)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SNFS")
def dropped_counts_rounded_to_the_nearest(patch: pytest.MonkeyPatch) -> None:
    def share_of(count: Any, digits: Any, *, xp: Any) -> Any:
        fraction = sum(int(digit) * 10.0**-place for place, digit in enumerate(digits))
        return np.round(fraction * count).astype(np.int32)

    patch.setattr(sharing, "share_of", share_of)
