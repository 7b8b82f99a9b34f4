"""Bugs of what is carried along: values, optimizer state, randomness, saved state."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.sparse_layer import SparseLayer
from rigl_backends.numpy.training import SparseTraining
from rigl_core.arrays import random
from rigl_core.step import update
from rigl_core.testing.properties import test_resume, test_training


@caught_by(test_training.test_optimizer_state_after_an_update)
def optimizer_state_of_dropped_weights_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseLayer, "_zero_state", lambda self, survivors: None)


@caught_by(test_training.test_optimizer_state_after_an_update)
def second_moment_of_adam_kept(patch: pytest.MonkeyPatch) -> None:
    def zero_state(self: SparseLayer, survivors: Any) -> None:
        for key, values in self._optimizer.state[self.name].items():
            if key in ("momentum", "mean"):
                values[~survivors] = 0

    patch.setattr(SparseLayer, "_zero_state", zero_state)


@caught_by(test_training.test_optimizer_state_after_an_update)
def optimizer_state_misaligned(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer._zero_state
    patch.setattr(SparseLayer, "_zero_state", lambda self, survivors: original(self, np.roll(survivors, 1)))


@caught_by(test_training.test_weights_after_an_update)
def grown_weights_take_stale_values(patch: pytest.MonkeyPatch) -> None:
    start, move_to = SparseLayer.start, SparseLayer.move_to

    def remember(self: SparseLayer, connections: Any, mask: Any) -> None:
        self.stale = self.weight.copy()  # type: ignore[attr-defined]
        start(self, connections, mask)

    def take(self: SparseLayer, connections: Any, moved: Any) -> None:
        old = self.mask
        self.stale[old] = self.weight[old]  # type: ignore[attr-defined]
        move_to(self, connections, moved)
        grown = self.mask & ~old
        self.weight[grown] = self.stale[grown]  # type: ignore[attr-defined]

    patch.setattr(SparseLayer, "start", remember)
    patch.setattr(SparseLayer, "move_to", take)


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


def patch_regrown(patch: pytest.MonkeyPatch, regrown: str) -> None:
    """Whatever the recipe says."""
    original = update.move_pool

    def move_pool(recipe: Any, *arguments: Any, xp: Any) -> Any:
        changed = copy.copy(recipe)
        object.__setattr__(changed, "regrown", regrown)  # past the checks of what goes together
        return original(changed, *arguments, xp=xp)

    patch.setattr("rigl_backends.numpy.training.move_pool", move_pool)


def _patch_key(patch: pytest.MonkeyPatch, random_key: Any) -> None:
    patch.setattr(random, "random_key", random_key)
    patch.setattr("rigl_backends.numpy.sparse_layer.random_key", random_key)


def _alias_masks(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.move_to

    def move_to(self: SparseLayer, connections: Any, moved: Any) -> None:
        live = self.mask
        original(self, connections, moved)
        live[...] = self.mask
        self.mask = live

    def masks(self: SparseTraining) -> dict[str, Any]:
        live = {layer.name: layer.mask for layer in self._layers.values()}
        return {layer.name: live.get(layer.name, np.ones(layer.shape, np.bool_)) for layer in self.plan.layers}

    patch.setattr(SparseLayer, "move_to", move_to)
    patch.setattr(SparseTraining, "masks", property(masks))
