"""Adapters with one realistic bug each, made by patching the NumPy backend: the tests of the tests."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from conformance_tests import test_budget, test_schedule
from rigl_backends.numpy.training import SparseTraining
from rigl_core import clock, distributions, drop_fractions, plan, random, recipe, schedules, topology
from rigl_core.testing.properties import test_gradients, test_resume, test_topology, test_training

Patch = Callable[[pytest.MonkeyPatch], None]
MUTANTS: dict[str, tuple[Patch, Callable[..., Any]]] = {}
"""By the bug's name: how to make it, and the property that must catch it."""


def caught_by(property_: Callable[..., Any]) -> Callable[[Patch], Patch]:
    def register(patch: Patch) -> Patch:
        MUTANTS[patch.__name__] = patch, property_
        return patch

    return register


def _zero(self: SparseTraining, name: str, survivors: Any, *, weights: bool = True, states: Any = None) -> None:
    """`SparseTraining._keep`, but for what a mutant leaves out."""
    param = self._optimizer.params[name]
    if weights:
        param[~survivors] = 0
    for key, value in self._optimizer.state[name].items():
        if isinstance(value, np.ndarray) and (states is None or key in states):
            value[~survivors] = 0


@caught_by(test_training.test_optimizer_state_after_an_update)
def optimizer_state_of_dropped_weights_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseTraining, "_keep", lambda self, name, old, new: _zero(self, name, old & new, states=()))


@caught_by(test_training.test_optimizer_state_after_an_update)
def second_moment_of_adam_kept(patch: pytest.MonkeyPatch) -> None:
    states = ("momentum", "mean")
    patch.setattr(SparseTraining, "_keep", lambda self, name, old, new: _zero(self, name, old & new, states=states))


@caught_by(test_training.test_optimizer_state_after_an_update)
def optimizer_state_misaligned(patch: pytest.MonkeyPatch) -> None:
    def keep(self: SparseTraining, name: str, old: Any, new: Any) -> None:
        _zero(self, name, old & new, states=())
        for value in self._optimizer.state[name].values():
            if isinstance(value, np.ndarray):
                value[~np.roll(old & new, 1)] = 0

    patch.setattr(SparseTraining, "_keep", keep)


@caught_by(test_training.test_weights_after_an_update)
def grown_weights_take_stale_values(patch: pytest.MonkeyPatch) -> None:
    stale: dict[tuple[int, str], Any] = {}

    def keep(self: SparseTraining, name: str, old: Any, new: Any) -> None:
        param = self._optimizer.params[name]
        shadow = stale.setdefault((id(self), name), param.copy())
        shadow[old] = param[old]
        _zero(self, name, old & new)
        param[new & ~old] = shadow[new & ~old]

    patch.setattr(SparseTraining, "_keep", keep)


@caught_by(test_training.test_weights_after_an_update)
def regrown_connections_reset(patch: pytest.MonkeyPatch) -> None:
    original = topology.updated_mask

    def updated_mask(drop_scores: Any, grow_scores: Any, mask: Any, keep: Any, grow: Any, *, xp: Any) -> Any:
        updated_mask.kept = topology.top_k_mask(np.where(mask, drop_scores, -1), keep, xp=xp)  # type: ignore[attr-defined]
        return original(drop_scores, grow_scores, mask, keep, grow, xp=xp)

    def keep(self: SparseTraining, name: str, old: Any, new: Any) -> None:
        moved = old is not new
        _zero(self, name, updated_mask.kept.reshape(old.shape) if moved else old)  # type: ignore[attr-defined]

    patch.setattr(recipe, "updated_mask", updated_mask)
    patch.setattr(SparseTraining, "_keep", keep)


@caught_by(test_topology.test_inactive_is_never_kept_even_if_active_weights_are_zero)
def inactive_positions_revived(patch: pytest.MonkeyPatch) -> None:
    def updated_mask(drop_scores: Any, grow_scores: Any, mask: Any, keep: Any, grow: Any, *, xp: Any) -> Any:
        kept = topology.top_k_mask(drop_scores * mask, keep, xp=xp)
        return kept | topology.top_k_mask(np.where(kept, -1, grow_scores), grow, xp=xp)

    _patch_update(patch, updated_mask)


@caught_by(test_topology.test_ties_go_to_the_lower_flat_index)
def all_tied_weights_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(topology, "top_k_mask", lambda scores, k, *, xp: scores > xp.kth_largest(scores, k))


@caught_by(test_topology.test_ties_go_to_the_lower_flat_index)
def ties_to_the_higher_index(patch: pytest.MonkeyPatch) -> None:
    original = topology.top_k_mask
    patch.setattr(topology, "top_k_mask", lambda scores, k, *, xp: original(scores[::-1], k, xp=xp)[::-1])


@caught_by(test_topology.test_special_values_rank_alike_everywhere)
def subnormal_numbers_rank(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(topology, "magnitude", lambda x, *, xp: np.nan_to_num(np.abs(x), nan=0.0, posinf=np.inf))


@caught_by(test_topology.test_nan_neither_steals_nor_loses_a_slot)
def nan_steals_a_slot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(topology, "magnitude", lambda x, *, xp: np.nan_to_num(np.abs(x), nan=np.inf))


@caught_by(test_topology.test_just_dropped_connections_can_be_regrown)
def just_dropped_not_eligible(patch: pytest.MonkeyPatch) -> None:
    def updated_mask(drop_scores: Any, grow_scores: Any, mask: Any, keep: Any, grow: Any, *, xp: Any) -> Any:
        kept = topology.top_k_mask(np.where(mask, drop_scores, -1), keep, xp=xp)
        return kept | topology.top_k_mask(np.where(mask, -1, grow_scores), grow, xp=xp)

    _patch_update(patch, updated_mask)


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


@caught_by(test_training.test_update_replaces_the_gradient_step)
def gradient_step_also_applied(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining._step

    def step(self: SparseTraining, grads: Any) -> None:
        if self._clock.due is not None:
            type(self._optimizer).step(self._optimizer, self._masked(grads))
        original(self, grads)

    patch.setattr(SparseTraining, "_step", step)


@caught_by(test_training.test_zeros_outside_the_mask_after_every_step)
def masks_not_reapplied_after_the_step(patch: pytest.MonkeyPatch) -> None:
    def step(self: SparseTraining, grads: Any) -> None:
        update = self._clock.due
        if update is None:
            type(self._optimizer).step(self._optimizer, grads)
        else:
            for position in self.plan.sparse_layers:
                self._move(position, update, grads[self.plan.layers[position].name])
        self._clock.advance(updated=update is not None)

    patch.setattr(SparseTraining, "_step", step)


@caught_by(test_training.test_zeros_outside_the_mask_after_every_step)
def momentum_outside_the_mask(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseTraining, "_masked", lambda self, grads: dict(grads))


@caught_by(test_gradients.test_nothing_outside_the_mask_reaches_the_optimizer)
def gradients_masked_by_multiplication(patch: pytest.MonkeyPatch) -> None:
    def masked(self: SparseTraining, grads: Mapping[str, Any]) -> dict[str, Any]:
        with np.errstate(invalid="ignore"):
            return {name: g if name not in self._masks else g * self._masks[name] for name, g in grads.items()}

    def step(self: SparseTraining, grads: Any) -> None:
        for position, layer in enumerate(self.plan.layers):
            if self._clock.due is not None:
                self._move(position, self._clock.due, grads[layer.name])
        if self._clock.due is None:
            type(self._optimizer).step(self._optimizer, self._masked(grads))
        self._clock.advance(updated=True)

    patch.setattr(SparseTraining, "_masked", masked)
    patch.setattr(SparseTraining, "_step", step)


@caught_by(test_gradients.test_ordinary_steps_are_those_of_a_sparse_network)
def clipping_sees_the_dense_gradient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseTraining, "mask_gradients", lambda self, grads: dict(grads))


@caught_by(test_training.test_masks_follow_the_oracle_step_by_step)
def growth_by_masked_gradients(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining._step
    patch.setattr(SparseTraining, "_step", lambda self, grads: original(self, self._masked(grads)))


@caught_by(test_gradients.test_non_finite_gradients_defer_the_update)
def update_on_non_finite_gradients(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseTraining, "_all_finite", lambda self, grads: True)


@caught_by(test_gradients.test_non_finite_gradients_defer_the_update)
def deferred_update_never_made(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(clock.Clock, "defer", lambda self: None)


@caught_by(test_gradients.test_unused_layers_keep_their_topology)
def unused_layer_grows_at_the_lowest_indices(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining._move

    def move(self: SparseTraining, position: int, update: int, grad: Any) -> None:
        shape = self.plan.layers[position].shape
        original(self, position, update, np.zeros(shape, np.float32) if grad is None else grad)

    patch.setattr(SparseTraining, "_move", move)


@caught_by(test_training.test_initial_topology)
def random_state_from_hash(patch: pytest.MonkeyPatch) -> None:
    def random_key(seed: int, layer: str, update: int) -> tuple[int, int]:
        return hash((seed, layer)) % 2**31, update

    _patch_key(patch, random_key)


@caught_by(test_resume.test_resume_after_a_stop_at_any_step)
def different_masks_per_replica(patch: pytest.MonkeyPatch) -> None:
    """As with a global random state: two trainings of one recipe start differently."""
    original, calls = random.random_key, iter(range(10**9))
    _patch_key(patch, lambda seed, layer, update: original(seed + next(calls), layer, update))
    patch.setattr(SparseTraining, "load_state_dict", lambda self, state: setattr(self._clock, "step", state["step"]))


@caught_by(test_training.test_set_grows_at_random)
def random_growth_ignores_the_update_number(patch: pytest.MonkeyPatch) -> None:
    original = random.random_key
    _patch_key(patch, lambda seed, layer, update: original(seed, layer, min(update, 0)))


@caught_by(test_resume.test_saved_state_does_not_change_when_training_goes_on)
def saved_masks_alias_the_live_ones(patch: pytest.MonkeyPatch) -> None:
    _alias_masks(patch)


@caught_by(test_resume.test_masks_given_out_do_not_change_when_training_goes_on)
def offered_masks_alias_the_live_ones(patch: pytest.MonkeyPatch) -> None:
    _alias_masks(patch)


@caught_by(test_resume.test_resume_after_a_stop_at_any_step)
def step_counter_not_saved(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining.load_state_dict
    patch.setattr(SparseTraining, "load_state_dict", lambda self, state: original(self, {**state, "step": 0}))


@caught_by(test_schedule.test_drop_counts_where_floats_are_wrong)
def float_rounded_drop_count(patch: pytest.MonkeyPatch) -> None:
    def drop_counts(schedule: Any, drop_fraction: Any, active: Any) -> Any:
        fractions = [drop_fraction.fraction(schedule.progress(u)) for u in range(schedule.updates)]
        return np.array([[int(f * n) for n in active] for f in fractions], np.int32)

    patch.setattr(drop_fractions, "drop_counts", drop_counts)
    patch.setattr(test_schedule, "drop_counts", drop_counts)


@caught_by(test_training.test_masks_follow_the_oracle_step_by_step)
def drop_count_from_the_target(patch: pytest.MonkeyPatch) -> None:
    original = plan.make_plan

    def make_plan(a_recipe: Any, layers: Any) -> Any:
        made = original(a_recipe, layers)
        target = [math.ceil((1 - made.recipe.sparsity) * layer.size) for layer in layers]
        table = drop_fractions.drop_counts(made.recipe.schedule, made.recipe.drop_fraction, target)
        object.__setattr__(made, "drop_counts", np.minimum(table, made.active))
        return made

    patch.setattr(importlib.import_module("rigl_backends.numpy.sparsify"), "make_plan", make_plan)


@caught_by(test_budget.test_er)
def er_on_the_last_two_axes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        distributions.ErdosRenyi,
        "scale",
        lambda self, layer: Fraction(sum(layer.shape[-2:]), layer.shape[-2] * layer.shape[-1]),
    )


@caught_by(test_budget.test_pinned_layers_are_outside_the_budget)
def pinned_layers_counted_in_the_budget(patch: pytest.MonkeyPatch) -> None:
    original = plan._budget

    def budget(a_recipe: Any, layers: Any, free: Any, pinned: int) -> int:
        everything = original(a_recipe, layers, layers, 0)
        return min(everything, sum(layer.size for layer in free))

    patch.setattr(plan, "_budget", budget)


@caught_by(test_budget.test_erk)
def erk_clamped_once_without_redistribution(patch: pytest.MonkeyPatch) -> None:
    def densities(self: Any, layers: Any, active: int) -> list[Fraction]:
        epsilon = Fraction(active) / sum((self.scale(layer) * layer.size for layer in layers), Fraction(0))
        return [min(Fraction(1), epsilon * self.scale(layer)) for layer in layers]

    patch.setattr(distributions.ScaledByShape, "densities", densities)
    patch.setattr(plan, "largest_remainder", lambda shares, total: [math.floor(share) for share in shares])


@caught_by(test_budget.test_active_count_is_exact)
def counts_rounded_layer_by_layer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plan, "largest_remainder", lambda shares, total: [round(share) for share in shares])


@caught_by(test_budget.test_sparsity_is_the_decimal_its_user_wrote)
def sparsity_read_as_a_binary_float(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plan, "active_count", lambda sparsity, size: round((1 - sparsity) * size))


def _patch_update(patch: pytest.MonkeyPatch, updated_mask: Any) -> None:
    patch.setattr(topology, "updated_mask", updated_mask)
    patch.setattr(recipe, "updated_mask", updated_mask)
    patch.setattr("conformance_tests.harnesses.numpy.updated_mask", updated_mask)


def _patch_fires(patch: pytest.MonkeyPatch, fires: Callable[[Any, int], bool]) -> None:
    patch.setattr(schedules.UpdateSchedule, "fires", fires)


def _patch_key(patch: pytest.MonkeyPatch, random_key: Any) -> None:
    patch.setattr(random, "random_key", random_key)
    patch.setattr("rigl_backends.numpy.training.random_key", random_key)


def _alias_masks(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining._keep

    def move(self: SparseTraining, position: int, update: int, grad: Any) -> None:
        name = self.plan.layers[position].name
        live = self._masks[name]
        moves(self, position, update, grad)
        live[...] = self._masks[name]
        self._masks[name] = live

    moves = SparseTraining._move
    patch.setattr(SparseTraining, "_keep", original)
    patch.setattr(SparseTraining, "_move", move)
    patch.setattr(SparseTraining, "masks", property(lambda self: self._masks))
