"""Bugs of values, optimizer state, randomness and saved state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.layer import SparseLayer
from rigl_backends.numpy.training import SparseTraining
from rigl_core.arrays import random
from rigl_core.step import update
from rigl_core.testing.properties import test_fresh, test_gradients, test_resume, test_training


@caught_by(test_training.test_optimizer_state_after_an_update)
def optimizer_state_of_dropped_weights_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseLayer, "zero_state_outside", lambda self, mask: None)


@caught_by(test_training.test_optimizer_state_after_an_update)
def second_moment_of_adam_kept(patch: pytest.MonkeyPatch) -> None:
    def zero_state_outside(self: SparseLayer, mask: Any) -> None:
        for key, values in self._optimizer.state[self.layer.name].items():
            if key in ("momentum", "mean"):
                values[~mask.reshape(values.shape)] = 0

    patch.setattr(SparseLayer, "zero_state_outside", zero_state_outside)


@caught_by(test_training.test_optimizer_state_after_an_update)
def optimizer_state_misaligned(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.zero_state_outside
    patch.setattr(SparseLayer, "zero_state_outside", lambda self, mask: original(self, np.roll(mask, 1)))


@caught_by(test_gradients.test_optimizers_that_are_not_element_wise_are_projected)
def optimizer_state_outside_stays_until_the_update(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("rigl_backends.numpy.training.keeps_zeros", lambda optimizer: True)


@caught_by(test_fresh.test_new_weights_get_the_state_of_the_optimizer)
def every_state_starts_at_zero(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("rigl_backends.numpy.layer.fresh_state", lambda optimizer, name, axes: {})


@caught_by(test_fresh.test_state_that_was_there_before_becomes_fresh_outside)
def optimizer_state_from_before_stays(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.start

    def start(self: SparseLayer, connections: Any, mask: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(SparseLayer, "zero_state_outside", lambda self, mask: None)
            original(self, connections, mask)

    patch.setattr(SparseLayer, "start", start)


@caught_by(test_fresh.test_state_that_was_there_before_becomes_fresh_outside)
def optimizer_state_from_before_is_lost(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.start

    def start(self: SparseLayer, connections: Any, mask: Any) -> None:
        original(self, connections, mask)
        self.zero_state_outside(np.zeros_like(mask))

    patch.setattr(SparseLayer, "start", start)


@caught_by(test_training.test_weights_after_an_update)
def grown_weights_take_stale_values(patch: pytest.MonkeyPatch) -> None:
    start, take = SparseLayer.start, SparseLayer.take

    def remember(self: SparseLayer, connections: Any, mask: Any) -> None:
        self.stale = self.weight.copy()  # type: ignore[attr-defined]
        start(self, connections, mask)

    def take_stale(self: SparseLayer, connections: Any, updated: Any) -> None:
        old = self.mask
        self.stale[old] = self.weight[old]  # type: ignore[attr-defined]
        take(self, connections, updated)
        self.weight = np.where(self.mask & ~old, self.stale, self.weight)  # type: ignore[attr-defined]

    patch.setattr(SparseLayer, "start", remember)
    patch.setattr(SparseLayer, "take", take_stale)


@caught_by(test_training.test_weights_after_an_update)
def regrown_connections_reset(patch: pytest.MonkeyPatch) -> None:
    patch_regrown(patch, "reset")


@caught_by(test_training.test_initial_topology)
def random_state_from_hash(patch: pytest.MonkeyPatch) -> None:
    def random_key(seed: int, layer: str, update: int) -> tuple[int, int]:
        return hash((seed, layer)) % 2**31, update

    _patch_key(patch, random_key)


@caught_by(test_resume.test_resume_after_a_stop_at_any_step)
def different_masks_per_replica(patch: pytest.MonkeyPatch) -> None:
    """Two trainings of one recipe start differently, as they would with a global random state."""
    original, calls = random.random_key, iter(range(10**9))

    def load_state_dict(self: SparseTraining, state: Any) -> None:
        self._clock = replace(self._clock, step=state["step"])

    _patch_key(patch, lambda seed, layer, update: original(seed + next(calls), layer, update))
    patch.setattr(SparseTraining, "load_state_dict", load_state_dict)


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


def patch_regrown(patch: pytest.MonkeyPatch, regrown: Any) -> None:
    """Use this value of ``regrown`` in every update, whatever the recipe says."""

    def move_pool(rule: Any, *arguments: Any, xp: Any) -> Any:
        return update.move_pool(replace(rule, regrown=regrown), *arguments, xp=xp)

    patch.setattr("rigl_core.step.layer.move_pool", move_pool)


def _patch_key(patch: pytest.MonkeyPatch, random_key: Any) -> None:
    patch.setattr(random, "random_key", random_key)
    patch.setattr("rigl_core.step.layer.random_key", random_key)


def _alias_masks(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.take

    def take(self: SparseLayer, connections: Any, updated: Any) -> None:
        live = self.mask
        original(self, connections, updated)
        live[...] = self.mask
        self.mask = live

    def mask(self: SparseTraining, position: int) -> Any:
        shape = self.plan.layers[position].shape
        return self._layers[position].mask.reshape(shape) if position in self._layers else np.ones(shape, np.bool_)

    patch.setattr(SparseLayer, "take", take)
    patch.setattr(SparseTraining, "_mask", mask)
