"""Bugs of the fast choice of connections, `rigl_core.step.selection`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.step import scoring, selection
from rigl_core.testing.properties import test_topology


@caught_by(test_topology.test_large_layers_agree_with_a_stable_sort)
def ties_at_the_bound_from_the_end(patch: pytest.MonkeyPatch) -> None:
    def last_with(score: Any, eligible: Any, scores: Any, count: int) -> Any:
        everything = slice(0, eligible.size)
        return np.flatnonzero((selection._floored(scores, everything) == score) & eligible[everything])[-count:]

    patch.setattr(selection, "_first_with", last_with)


@caught_by(test_topology.test_ties_go_to_the_lower_flat_index)
def ties_between_the_bounds_to_the_higher_index(patch: pytest.MonkeyPatch) -> None:
    original = selection._largest
    patch.setattr(selection, "_largest", lambda values, k: original(values[::-1], k)[::-1])


@caught_by(test_topology.test_ties_go_to_the_lower_flat_index)
def ties_between_the_bounds_left_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(selection, "_largest", lambda values, k: values > np.sort(values)[values.size - k])


@caught_by(test_topology.test_inactive_is_never_kept_even_if_active_weights_are_zero)
def inactive_kept_on_the_host(patch: pytest.MonkeyPatch) -> None:
    original = scoring.host_namespace.best_of
    assert original is not None

    def best_of(scores: Any, k: int, *, among: Any = None, outside: Any = None) -> Any:
        return original(scores, k, among=None if among is None else np.ones_like(among), outside=outside)

    patch.setattr(scoring.host_namespace, "best_of", best_of)


@caught_by(test_topology.test_large_layers_agree_with_a_stable_sort)
def inactive_kept_by_the_bounds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(selection._Eligible, "restrict", lambda self, chosen, part: None)


@caught_by(test_topology.test_just_dropped_connections_can_be_regrown)
def kept_connections_grown_on_the_host(patch: pytest.MonkeyPatch) -> None:
    original = scoring.host_namespace.best_of
    assert original is not None

    def best_of(scores: Any, k: int, *, among: Any = None, outside: Any = None) -> Any:
        return original(scores, k, among=among, outside=None if outside is None else np.zeros_like(outside))

    patch.setattr(scoring.host_namespace, "best_of", best_of)


@caught_by(test_topology.test_nan_neither_steals_nor_loses_a_slot)
def nan_looks_large(patch: pytest.MonkeyPatch) -> None:
    original = scoring.Magnitudes.look
    patch.setattr(scoring.Magnitudes, "look", lambda self, part: np.nan_to_num(original(self, part), nan=np.inf))


@caught_by(test_topology.test_special_values_rank_alike_everywhere)
def subnormals_look_larger_than_zeros(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scoring, "_largest_subnormal", lambda dtype: dtype.type(0))
