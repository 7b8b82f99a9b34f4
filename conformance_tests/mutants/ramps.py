"""Bugs of sparsity over time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance_tests import test_ramps
from conformance_tests.mutants.registry import caught_by
from rigl_core.parts import ramps
from rigl_core.plan import budget, making, plan
from rigl_core.testing.properties import test_methods


@caught_by(test_ramps.test_a_ramp_keeps_the_budget_of_each_update)
def ramp_off_by_one_update(patch: pytest.MonkeyPatch) -> None:
    original = making._targets

    def targets(recipe: Any, layers: Any, final: Any) -> Any:
        table = original(recipe, layers, final)
        return np.concatenate([table[1:], table[-1:]])

    patch.setattr(making, "_targets", targets)


@caught_by(test_ramps.test_a_ramp_keeps_the_budget_of_each_update)
def ramp_ends_above_the_budget(patch: pytest.MonkeyPatch) -> None:
    """The ramp's progress is measured like the drop fraction's, which never reaches 1."""
    original = making._targets

    def targets(recipe: Any, layers: Any, final: Any) -> Any:
        updates = len(original(recipe, layers, final))
        rows = [making.share_budget(recipe, layers, update / updates).active for update in range(updates)]
        return np.array(rows, np.int64).reshape(updates, len(layers))

    patch.setattr(making, "_targets", targets)


@caught_by(test_ramps.test_a_ramp_keeps_the_budget_of_each_update)
def layers_grow_again_by_rounding(patch: pytest.MonkeyPatch) -> None:
    def targets(recipe: Any, layers: Any, final: Any) -> Any:
        updates = recipe.schedule.updates if recipe.schedule is not None else 0
        times = [update / (updates - 1) if updates > 1 else 1.0 for update in range(updates)]
        rows = [making.share_budget(recipe, layers, time).active for time in times]
        return np.array(rows, np.int64).reshape(updates, len(layers))

    patch.setattr(making, "_targets", targets)


@caught_by(test_ramps.test_pinned_layers_follow_the_ramp_to_their_own_sparsity)
def ramp_mirrored(patch: pytest.MonkeyPatch) -> None:
    """initial + (final - initial) * progress ** power, which is slow at first and fast at the end."""
    patch.setattr(
        ramps.CubicRamp,
        "sparsity",
        lambda self, progress, final: (
            min(self.initial, final) + (final - min(self.initial, final)) * progress**self.power
        ),
    )


@caught_by(test_ramps.test_pinned_layers_follow_the_ramp_to_their_own_sparsity)
def pinned_layers_sparse_from_the_start(patch: pytest.MonkeyPatch) -> None:
    original = budget._pinned_counts
    patch.setattr(budget, "_pinned_counts", lambda recipe, layers, _: original(recipe, layers, lambda final: final))


@caught_by(test_ramps.test_the_final_sparsity_of_a_ramp_is_read_as_written)
def final_sparsity_rounded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ramps.CubicRamp, "sparsity", lambda self, progress, final: round(final, 12))


@caught_by(test_methods.test_methods_keep_their_counts_and_resume, "RigL, on a ramp")
def ramp_applied_one_update_late(patch: pytest.MonkeyPatch) -> None:
    """The adapter reads the counts of the update before."""
    original = plan.Plan.counts
    patch.setattr(plan.Plan, "counts", lambda self, update, pool: original(self, max(update - 1, 0), pool))
