"""Bugs of Algorithm 1. It is written once: a bug shows on the host, in groups, and in layers that choose together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.arrays import numpy_namespace, topology
from rigl_core.step.scoring import Scores
from rigl_core.testing.properties import test_methods, test_topology


@caught_by(test_topology.test_inactive_is_never_kept_even_if_active_weights_are_zero)
def inactive_positions_revived(patch: pytest.MonkeyPatch) -> None:
    _revive_inactive_positions(patch)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, all layers")
def inactive_positions_revived_in_pools(patch: pytest.MonkeyPatch) -> None:
    _revive_inactive_positions(patch)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SRigL")
def all_tied_weights_dropped(patch: pytest.MonkeyPatch) -> None:
    def kept_mask(drop_scores: Any, mask: Any, keep: Any, *, xp: Any, negative: Any = None) -> Any:
        return mask & (drop_scores > xp.kth_largest(np.where(mask, drop_scores, -1), keep))

    patch.setattr(topology, "kept_mask", kept_mask)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL 2:4")
def ties_to_the_higher_index(patch: pytest.MonkeyPatch) -> None:
    original = topology.top_k_mask
    patch.setattr(topology, "top_k_mask", lambda scores, k, *, xp: original(scores[..., ::-1], k, xp=xp)[..., ::-1])


@caught_by(test_topology.test_special_values_rank_alike_everywhere)
def subnormal_numbers_rank(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(topology, "magnitude", lambda x, *, xp: np.nan_to_num(np.abs(x), nan=0.0, posinf=np.inf))


@caught_by(test_topology.test_special_values_rank_alike_everywhere)
def nan_steals_a_slot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(topology, "magnitude", lambda x, *, xp: np.nan_to_num(np.abs(x), nan=np.inf))


@caught_by(test_topology.test_just_dropped_connections_can_be_regrown)
def just_dropped_not_eligible(patch: pytest.MonkeyPatch) -> None:
    _grow_outside_the_old_mask(patch)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "RigL, blocks of 2")
def just_dropped_not_eligible_in_groups(patch: pytest.MonkeyPatch) -> None:
    _grow_outside_the_old_mask(patch)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SET as published")
def kept_whatever_the_sign(patch: pytest.MonkeyPatch) -> None:
    original = topology.kept_mask

    def kept_mask(drop_scores: Any, mask: Any, keep: Any, *, xp: Any, negative: Any = None) -> Any:
        return original(drop_scores, mask, keep if negative is None else keep.sum(), xp=xp)

    patch.setattr(topology, "kept_mask", kept_mask)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SET as published")
def what_grew_counts_as_kept(patch: pytest.MonkeyPatch) -> None:
    """Connections that are dropped and grow again survive, although the recipe resets them."""
    original = topology.updated_mask

    def updated_mask(*arguments: Any, **options: Any) -> Any:
        new, _ = original(*arguments, **options)
        return new, new

    patch.setattr(topology, "updated_mask", updated_mask)


def _revive_inactive_positions(patch: pytest.MonkeyPatch) -> None:
    """Inactive connections score 0, the same as active ones with weight 0."""

    def kept_mask(drop_scores: Any, mask: Any, keep: Any, *, xp: Any, negative: Any = None) -> Any:
        values = drop_scores.look(slice(None)) if isinstance(drop_scores, Scores) else drop_scores
        return topology.top_k_mask(values * mask, keep, xp=numpy_namespace)

    patch.setattr(topology, "kept_mask", kept_mask)


def _grow_outside_the_old_mask(patch: pytest.MonkeyPatch) -> None:
    def updated_mask(drop_scores: Any, grow_scores: Any, mask: Any, keep: Any, grow: Any, *, xp: Any, **_: Any) -> Any:
        kept = topology.kept_mask(drop_scores, mask, keep, xp=xp)
        room = int((~mask).sum(axis=-1).min())
        return kept | topology.best_of(grow_scores, min(grow, room), outside=mask, xp=xp), kept

    patch.setattr(topology, "updated_mask", updated_mask)
