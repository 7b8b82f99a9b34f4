"""Bugs of what is carried along: values, optimizer state, randomness, saved state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from conformance_tests.mutants.topology import take_the_definition
from rigl_backends.numpy.training import SparseTraining
from rigl_core import random, recipe, topology
from rigl_core.testing.properties import test_resume, test_training


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

    take_the_definition(patch)
    patch.setattr(recipe, "updated_mask", updated_mask)
    patch.setattr(SparseTraining, "_keep", keep)


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


def _zero(self: SparseTraining, name: str, survivors: Any, *, weights: bool = True, states: Any = None) -> None:
    """`SparseTraining._keep`, but for what a mutant leaves out."""
    param = self._optimizer.params[name]
    if weights:
        param[~survivors] = 0
    for key, value in self._optimizer.state[name].items():
        if isinstance(value, np.ndarray) and (states is None or key in states):
            value[~survivors] = 0


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
