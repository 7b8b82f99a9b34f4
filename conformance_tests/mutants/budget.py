"""Bugs of counts and schedules."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from conformance_tests import test_budget, test_schedule
from conformance_tests.mutants.registry import caught_by
from rigl_core.parts import distributions, drop_fractions, schedules
from rigl_core.plan import budget, making, plan
from rigl_core.testing.properties import test_training


@caught_by(test_training.test_masks_follow_the_oracle_step_by_step)
def window_opens_one_step_late(patch: pytest.MonkeyPatch) -> None:
    _patch_fires(patch, lambda s, t: s.begin < t < s.end and (t - s.begin) % s.every == 0)


@caught_by(test_training.test_masks_follow_the_oracle_step_by_step)
def window_closes_one_step_late(patch: pytest.MonkeyPatch) -> None:
    _patch_fires(patch, lambda s, t: s.begin <= t <= s.end and (t - s.begin) % s.every == 0)


@caught_by(test_training.test_masks_follow_the_oracle_step_by_step)
def end_ignored(patch: pytest.MonkeyPatch) -> None:
    _patch_fires(patch, lambda s, t: s.begin <= t and (t - s.begin) % s.every == 0)


@caught_by(test_schedule.test_updates_fire_in_the_window)
def window_not_counted_from_begin(patch: pytest.MonkeyPatch) -> None:
    _patch_fires(patch, lambda s, t: s.begin <= t < s.end and t % s.every == 0)


@caught_by(test_schedule.test_drop_counts_where_floats_are_wrong)
def float_rounded_drop_count(patch: pytest.MonkeyPatch) -> None:
    def counts_of(fractions: Any, active: Any) -> Any:
        return np.floor(fractions[:, None] / 10.0**12 * active).astype(np.int32)

    patch.setattr(drop_fractions, "counts_of", counts_of)


@caught_by(test_training.test_masks_follow_the_oracle_step_by_step)
def drop_count_from_the_target(patch: pytest.MonkeyPatch) -> None:
    original = making.make_plan

    def make_plan(a_recipe: Any, layers: Any, others: Any = None) -> Any:
        made = original(a_recipe, layers)
        target = [math.ceil((1 - made.recipe.sparsity) * layer.size) for layer in layers]
        table = drop_fractions.drop_counts(made.recipe.schedule, made.recipe.drop_fraction, target)
        grow = np.minimum(table, made.active)[:, [pool[0] for pool in made.pools]]
        keep = np.array([made.active[pool[0]] for pool in made.pools], np.int32) - grow
        for name, rows in (("grow_counts", grow), ("keep_counts", keep), ("digits", grow[:, :0])):
            object.__setattr__(made, name, rows)
        return made

    patch.setattr(importlib.import_module("rigl_backends.numpy.sparsify"), "make_plan", make_plan)


@caught_by(test_training.test_masks_follow_the_oracle_step_by_step)
def counts_of_the_next_update(patch: pytest.MonkeyPatch) -> None:
    original = plan.Tables.counts

    def counts(self: plan.Tables, update: int, pool: int) -> Any:
        return original(self, min(update + 1, len(self.keep_counts) - 1), pool)

    patch.setattr(plan.Tables, "counts", counts)


@caught_by(test_budget.test_er)
def er_on_the_last_two_axes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        distributions.ErdosRenyi,
        "scale",
        lambda self, layer: Fraction(sum(layer.shape[-2:]), layer.shape[-2] * layer.shape[-1]),
    )


@caught_by(test_budget.test_pinned_layers_are_outside_the_budget)
def pinned_layers_counted_in_the_budget(patch: pytest.MonkeyPatch) -> None:
    original = budget._budget

    def of_everything(a_recipe: Any, layers: Any, free: Any, pinned: int, sparsity_of: Any) -> int:
        everything = original(a_recipe, layers, layers, 0, sparsity_of)
        return min(everything, sum(layer.size for layer in free))

    patch.setattr(budget, "_budget", of_everything)


@caught_by(test_budget.test_erk)
def erk_clamped_once_without_redistribution(patch: pytest.MonkeyPatch) -> None:
    def densities(self: Any, layers: Any, active: int) -> list[Fraction]:
        epsilon = Fraction(active) / sum((self.scale(layer) * layer.size for layer in layers), Fraction(0))
        return [min(Fraction(1), epsilon * self.scale(layer)) for layer in layers]

    patch.setattr(distributions.ScaledByShape, "densities", densities)
    patch.setattr(budget, "largest_remainder", lambda shares, total: [math.floor(share) for share in shares])


@caught_by(test_budget.test_active_count_is_exact)
def counts_rounded_layer_by_layer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget, "largest_remainder", lambda shares, total: [round(share) for share in shares])


@caught_by(test_budget.test_sparsity_is_the_decimal_its_user_wrote)
def sparsity_read_as_a_binary_float(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget, "active_count", lambda sparsity, size: round((1 - sparsity) * size))


def after_the_end_as_the_last(patch: pytest.MonkeyPatch) -> None:
    """Updates after the end have the counts of the last one, since the plan has no others."""
    original = schedules.UpdateSchedule.latest_update
    patch.setattr(schedules.UpdateSchedule, "latest_update", lambda self, t: min(original(self, t), self.updates - 1))


def _patch_fires(patch: pytest.MonkeyPatch, fires: Callable[[Any, int], bool]) -> None:
    patch.setattr(schedules.UpdateSchedule, "fires", lambda self, t: self.updates > 0 and fires(self, t))
    after_the_end_as_the_last(patch)
