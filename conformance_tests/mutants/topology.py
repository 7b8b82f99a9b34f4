"""Bugs of the selection: which connections are kept and grown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.arrays import topology
from rigl_core.arrays.namespace import NumPyNamespace
from rigl_core.testing.properties import test_topology


@caught_by(test_topology.test_inactive_is_never_kept_even_if_active_weights_are_zero)
def inactive_positions_revived(patch: pytest.MonkeyPatch) -> None:
    def kept_mask(drop_scores: Any, mask: Any, keep: Any, *, xp: Any) -> Any:
        return topology.top_k_mask(drop_scores * mask, keep, xp=xp)

    take_the_definition(patch)
    patch.setattr(topology, "kept_mask", kept_mask)


@caught_by(test_topology.test_ties_go_to_the_lower_flat_index)
def all_tied_weights_dropped(patch: pytest.MonkeyPatch) -> None:
    take_the_definition(patch)
    patch.setattr(topology, "top_k_mask", lambda scores, k, *, xp: scores > xp.kth_largest(scores, k))


@caught_by(test_topology.test_ties_go_to_the_lower_flat_index)
def ties_to_the_higher_index(patch: pytest.MonkeyPatch) -> None:
    take_the_definition(patch)
    original = topology.top_k_mask
    patch.setattr(topology, "top_k_mask", lambda scores, k, *, xp: original(scores[::-1], k, xp=xp)[::-1])


@caught_by(test_topology.test_special_values_rank_alike_everywhere)
def subnormal_numbers_rank(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(topology, "magnitude", lambda x, *, xp: np.nan_to_num(np.abs(x), nan=0.0, posinf=np.inf))


@caught_by(test_topology.test_nan_neither_steals_nor_loses_a_slot)
def nan_steals_a_slot(patch: pytest.MonkeyPatch) -> None:
    take_the_definition(patch)
    patch.setattr(topology, "magnitude", lambda x, *, xp: np.nan_to_num(np.abs(x), nan=np.inf))


@caught_by(test_topology.test_just_dropped_connections_can_be_regrown)
def just_dropped_not_eligible(patch: pytest.MonkeyPatch) -> None:
    original = topology.kept_mask
    before: list[Any] = []

    def kept_mask(drop_scores: Any, mask: Any, keep: Any, *, xp: Any) -> Any:
        before.append(mask)
        return original(drop_scores, mask, keep, xp=xp)

    def grown_mask(grow_scores: Any, kept: Any, grow: Any, *, xp: Any) -> Any:
        return topology.top_k_mask(np.where(kept | before.pop(), -1, grow_scores), grow, xp=xp)

    take_the_definition(patch)
    patch.setattr(topology, "kept_mask", kept_mask)
    patch.setattr(topology, "grown_mask", grown_mask)


def take_the_definition(patch: pytest.MonkeyPatch) -> None:
    """Choose by the code that is to have the bug, instead of by `selection`; one layer after the other."""
    patch.delattr(NumPyNamespace, "on_host")
    patch.setattr("rigl_backends.numpy.training.two_at_a_time", lambda move, layers, _: [*map(move, layers)])
