"""Bugs of layers that choose together, and of redistribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.arrays import sharing
from rigl_core.plan import Counts
from rigl_core.step import pools, update
from rigl_core.testing.properties import test_methods


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, all layers")
def ties_to_the_later_layer(patch: pytest.MonkeyPatch) -> None:
    original = update.as_one_layer

    def as_one_layer(rule: Any, pool: Sequence[Any], masks: Sequence[Any], counts: Any, xp: Any) -> list[Any]:
        return original(rule, pool[::-1], masks[::-1], counts, xp)[::-1]

    patch.setattr(update, "as_one_layer", as_one_layer)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "gradual pruning, all layers")
def global_scope_chosen_per_layer(patch: pytest.MonkeyPatch) -> None:
    def as_one_layer(rule: Any, pool: Sequence[Any], masks: Sequence[Any], counts: Any, xp: Any) -> list[Any]:
        active = np.array([mask.sum() for mask in masks], np.int32)
        keep = sharing.in_proportion(np.array([counts.keep], np.int32), active, xp=xp)
        own = zip(pool, masks, keep, strict=True)
        return [update._alone(rule, connections, mask, Counts(kept, 0), xp) for connections, mask, kept in own]

    patch.setattr(update, "as_one_layer", as_one_layer)


@caught_by(test_methods.test_initial_topologies_are_the_oracles, "scores")
def given_scores_chosen_per_layer(patch: pytest.MonkeyPatch) -> None:
    def initial_masks(rule: Any, *arguments: Any, xp: Any) -> list[Any]:
        return update.initial_masks(replace(rule, scope="layer"), *arguments, xp=xp)

    patch.setattr("rigl_core.step.layer.initial_masks", initial_masks)


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
    """Layers share the growth by their active counts before the drop."""
    original = pools._weights_of_layers

    def weights_of_layers(rule: Any, scores: Any, masks: Any, keep: Any, xp: Any) -> Any:
        return original(rule, scores, masks, np.array([mask.sum() for mask in masks], np.int32), xp)

    patch.setattr(pools, "_weights_of_layers", weights_of_layers)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SNFS")
def dropped_counts_rounded_to_the_nearest(patch: pytest.MonkeyPatch) -> None:
    def share_of(count: Any, digits: Any, *, xp: Any) -> Any:
        fraction = sum(int(digit) * 10.0**-place for place, digit in enumerate(digits))
        return np.round(fraction * count).astype(np.int32)

    patch.setattr(sharing, "share_of", share_of)
