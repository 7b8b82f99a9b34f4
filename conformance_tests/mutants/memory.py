"""Bugs of what is remembered: momentum, shadow weights, noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.sparse_layer import SparseLayer
from rigl_backends.numpy.training import SparseTraining
from rigl_core.arrays.noise import noisy_gradient
from rigl_core.step.selection import zero_outside
from rigl_core.testing.properties import test_memory, test_methods


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SNFS")
def momentum_observed_after_masking(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.observe
    patch.setattr(SparseLayer, "observe", lambda self, grad: original(self, None if grad is None else grad * self.mask))


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SNFS, no redistribution")
def momentum_observed_after_the_update(patch: pytest.MonkeyPatch) -> None:
    observe, step = SparseLayer.observe, SparseTraining._step

    def step_first(self: SparseTraining, grads: Mapping[str, Any]) -> None:
        step(self, grads)
        for layer in self._layers.values():
            observe(layer, grads.get(layer.name))

    patch.setattr(SparseLayer, "observe", lambda self, grad: None)
    patch.setattr(SparseTraining, "_step", step_first)


@caught_by(test_memory.test_momentum_recovers_from_non_finite_gradients)
def momentum_takes_non_finite_gradients(patch: pytest.MonkeyPatch) -> None:
    def observe(self: SparseLayer, grad: Any) -> None:
        old = self.memory["momentum"]
        self.memory = {"momentum": np.float32(0.9) * old + np.float32(0.1) * grad.reshape(-1)}

    patch.setattr(SparseLayer, "observe", observe)


@caught_by(test_methods.test_methods_keep_their_counts_and_resume, "SNFS, no redistribution")
def momentum_not_saved(patch: pytest.MonkeyPatch) -> None:
    _forget(patch, "momentum", 0)


@caught_by(test_methods.test_methods_keep_their_counts_and_resume, "DNW")
def shadow_weights_not_saved(patch: pytest.MonkeyPatch) -> None:
    _forget(patch, "shadow", 0)


@caught_by(test_methods.test_methods_keep_their_counts_and_resume, "Deep R")
def signs_not_saved(patch: pytest.MonkeyPatch) -> None:
    _forget(patch, "sign", 1)


@caught_by(test_memory.test_shadow_weights_go_on_learning)
def shadow_weights_not_updated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseLayer, "hide_shadow", lambda self: zero_outside(self.weight, self.mask))


@caught_by(test_memory.test_shadow_weights_go_on_learning)
def shadow_weights_see_the_masked_gradient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseTraining, "_for_optimizer", SparseTraining._masked)


@caught_by(test_memory.test_shadow_weights_go_on_learning)
def shadow_optimizer_state_zeroed(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.move_to

    def move_to(self: SparseLayer, connections: Any, moved: Any) -> None:
        original(self, connections, moved)
        for values in self._optimizer.state[self.name].values():
            values[~self.mask] = 0

    patch.setattr(SparseLayer, "move_to", move_to)


@caught_by(test_methods.test_methods_keep_their_counts_and_resume, "Deep R")
def noise_on_inactive_weights(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.noisy

    def noisy(self: SparseLayer, grad: Any, step: int) -> Any:
        mask, self.mask = self.mask, np.ones_like(self.mask)
        everywhere = original(self, grad, step)
        self.mask = mask
        return everywhere

    patch.setattr(SparseLayer, "noisy", noisy)


@caught_by(test_memory.test_noise_and_pull_are_part_of_the_gradient)
def noise_the_same_at_every_step(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.noisy
    patch.setattr(SparseLayer, "noisy", lambda self, grad, step: original(self, grad, 0))


@caught_by(test_memory.test_noise_and_pull_are_part_of_the_gradient)
def pull_away_from_zero(patch: pytest.MonkeyPatch) -> None:
    name = "rigl_backends.numpy.sparse_layer.noisy_gradient"

    patch.setattr(
        name, lambda connections, l1, noise, step, *, xp: noisy_gradient(connections, -l1, noise, step, xp=xp)
    )


@caught_by(test_memory.test_noise_and_pull_are_part_of_the_gradient)
def deviation_of_the_draws_not_of_their_sum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("rigl_core.arrays.noise._DEVIATION", 2**16 / math.sqrt(12))


def _forget(patch: pytest.MonkeyPatch, kind: str, value: int) -> None:
    original = SparseTraining.load_state_dict

    def load_state_dict(self: SparseTraining, state: Mapping[str, Any]) -> None:
        forgotten = {name: np.full_like(array, value) for name, array in state["memory"][kind].items()}
        original(self, {**state, "memory": {**state["memory"], kind: forgotten}})

    patch.setattr(SparseTraining, "load_state_dict", load_state_dict)
