"""Bugs of updates that take neurons away."""

from __future__ import annotations

from typing import Any

import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.arrays import topology
from rigl_core.step import neurons
from rigl_core.testing.properties import test_methods

checked = caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SRigL as published")


@checked
def every_neuron_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(neurons, "_threshold", lambda fan_in, gamma_sal: 0)


@checked
def threshold_is_rounded_down(patch: pytest.MonkeyPatch) -> None:
    original: Any = neurons._threshold
    patch.setattr(neurons, "_threshold", lambda fan_in, share: original(fan_in, share) - (fan_in * share % 1 > 0))


@checked
def growth_is_not_salient(patch: pytest.MonkeyPatch) -> None:
    original: Any = neurons._salient
    patch.setattr(neurons, "_salient", lambda *given: (original(*given)[0],) * 2)


@checked
def each_neuron_drops_its_share(patch: pytest.MonkeyPatch) -> None:
    original: Any = neurons._salient

    def salient(drop: Any, grow: Any, mask: Any, counts: Any, xp: Any) -> tuple[Any, Any]:
        kept = topology.top_k_mask(xp.where(mask, drop, drop * 0 - 1), counts.keep, xp=xp) & mask
        return kept, original(drop, grow, mask, counts, xp)[1]

    patch.setattr(neurons, "_salient", salient)


@checked
def lost_connections_are_not_grown_again(patch: pytest.MonkeyPatch) -> None:
    original: Any = topology.top_k_with

    def without_those_of_others(first: Any, scores: Any, k: Any, *, xp: Any) -> Any:
        return original(first, scores, k - 1, xp=xp)

    patch.setattr(topology, "top_k_with", without_those_of_others)
