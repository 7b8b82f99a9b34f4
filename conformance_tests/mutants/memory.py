"""Bugs of the memory of methods and of noise: momentum, shadow weights, noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.layer import SparseLayer
from rigl_backends.numpy.training import SparseTraining
from rigl_core import adapter
from rigl_core.arrays.noise import noisy_gradient
from rigl_core.testing.properties import test_memory, test_methods


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SNFS")
def momentum_observed_after_masking(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.observe

    def observe(self: SparseLayer, gradient: Any) -> None:
        original(self, None if gradient is None else gradient * self.mask)

    patch.setattr(SparseLayer, "observe", observe)


@caught_by(test_methods.test_every_method_chooses_as_the_oracle, "SNFS, no redistribution")
def momentum_observed_after_the_update(patch: pytest.MonkeyPatch) -> None:
    observe, take_step = SparseLayer.observe, adapter.SparseTraining.take_step

    def step_first(self: Any, gradients: Mapping[int, Any], *arguments: Any, **options: Any) -> None:
        take_step(self, gradients, *arguments, **options)
        for i, layer in self._layers.items():
            observe(layer, gradients.get(i))

    patch.setattr(SparseLayer, "observe", lambda self, gradient: None)
    patch.setattr(adapter.SparseTraining, "take_step", step_first)


@caught_by(test_memory.test_momentum_recovers_from_non_finite_gradients)
def momentum_takes_non_finite_gradients(patch: pytest.MonkeyPatch) -> None:
    def observe(self: SparseLayer, gradient: Any) -> None:
        self.memory = {"momentum": np.float32(0.9) * self.memory["momentum"] + np.float32(0.1) * gradient}

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
    patch.setattr(SparseLayer, "hide_shadow", lambda self: None)


@caught_by(test_memory.test_shadow_weights_go_on_learning)
def shadow_weights_see_the_masked_gradient(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining._gradient_step

    def gradient_step(self: SparseTraining, grads: Any) -> None:
        original(self, self._changed(grads, SparseLayer.zero_outside))

    patch.setattr(SparseTraining, "_gradient_step", gradient_step)


@caught_by(test_memory.test_shadow_weights_go_on_learning)
def shadow_optimizer_state_zeroed(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.take

    def take(self: SparseLayer, connections: Any, updated: Any) -> None:
        original(self, connections, updated)
        self.zero_state_outside(updated.survivors)

    patch.setattr(SparseLayer, "take", take)


@caught_by(test_memory.test_shadow_weights_go_on_learning)
def memory_not_updated_with_the_topology(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.take

    def take(self: SparseLayer, connections: Any, updated: Any) -> None:
        before = self.memory
        original(self, connections, updated)
        self.memory = before

    patch.setattr(SparseLayer, "take", take)


@caught_by(test_methods.test_methods_keep_their_counts_and_resume, "Deep R")
def noise_on_inactive_weights(patch: pytest.MonkeyPatch) -> None:
    def for_optimizer(self: SparseLayer, gradient: Any, step: int) -> Any:
        return self.noisy(self.zero_outside(gradient), step)

    patch.setattr(SparseLayer, "for_optimizer", for_optimizer)


@caught_by(test_memory.test_noise_and_pull_are_part_of_the_gradient)
def noise_the_same_at_every_step(patch: pytest.MonkeyPatch) -> None:
    original = SparseLayer.noisy
    patch.setattr(SparseLayer, "noisy", lambda self, gradient, step: original(self, gradient, 0))


@caught_by(test_memory.test_noise_and_pull_are_part_of_the_gradient)
def pull_away_from_zero(patch: pytest.MonkeyPatch) -> None:
    def pushed(connections: Any, l1: float, *arguments: Any, xp: Any) -> Any:
        return noisy_gradient(connections, -l1, *arguments, xp=xp)

    patch.setattr("rigl_core.step.layer.noisy_gradient", pushed)


@caught_by(test_memory.test_noise_and_pull_are_part_of_the_gradient)
def deviation_of_the_draws_not_of_their_sum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("rigl_core.arrays.noise._DEVIATION", 2**16 / math.sqrt(12))


def _forget(patch: pytest.MonkeyPatch, kind: str, value: int) -> None:
    original = SparseTraining.load_state_dict

    def load_state_dict(self: SparseTraining, state: Mapping[str, Any]) -> None:
        forgotten = {name: np.full_like(array, value) for name, array in state["memory"][kind].items()}
        original(self, {**state, "memory": {**state["memory"], kind: forgotten}})

    patch.setattr(SparseTraining, "load_state_dict", load_state_dict)
