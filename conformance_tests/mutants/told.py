"""Bugs that leave the user without a word."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.training import SparseTraining
from rigl_core import adapter
from rigl_core.step import checkpoint, training
from rigl_core.testing.properties import test_resume, test_told


@caught_by(test_told.test_weights_outside_the_masks_are_told)
def weights_outside_are_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(adapter.SparseTraining, "tell_outside", lambda self: None)


@caught_by(test_told.test_weights_outside_the_masks_are_told)
def weights_inside_are_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(adapter.SparseLayer, "outside", property(lambda self: int(self.mask.sum())))


@caught_by(test_told.test_a_layer_without_a_connection_is_told)
def empty_layers_are_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training, "warn_about", lambda plan: None)


@caught_by(test_resume.test_a_state_of_another_recipe_is_refused)
def states_of_any_recipe_are_loaded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint, "check_saved_recipe", lambda *arguments: None)


@caught_by(test_told.test_steps_that_pass_the_training_by_are_told)
def steps_tell_nothing(patch: pytest.MonkeyPatch) -> None:
    """Only looks are told, and a step zeroes what they would have found."""
    original = SparseTraining._step

    def step(self: SparseTraining, grads: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            original(self, grads)

    patch.setattr(SparseTraining, "_step", step)
