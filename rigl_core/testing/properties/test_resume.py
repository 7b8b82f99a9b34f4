"""Properties of saving and resuming (rule P2)."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from rigl_core.model.warnings import SparsityWarning
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Harness
from rigl_core.testing.recording import Recorded, assert_same, start
from rigl_core.testing.strategies import Training, trainings


@checks("P2")
@for_all(trainings(), eager=30, compiled=2)
def test_resume_after_a_stop_at_any_step(harness: Harness, mode: str, training: Training) -> None:
    """New objects that load the saved state continue with the same bits."""
    stop = training.seed % training.steps
    session = start(harness, mode, training)
    for number in range(stop):
        session.step(training.gradients(number))
    resumed = start(harness, mode, training)
    resumed.load(session.save())
    assert resumed.steps() == stop
    assert_same(Recorded.of(resumed), Recorded.of(session))
    for number in range(stop, training.steps):
        session.step(training.gradients(number))
        resumed.step(training.gradients(number))
        assert_same(Recorded.of(resumed), Recorded.of(session))


@checks("P2")
@for_all(trainings(), eager=20, compiled=2)
def test_saved_state_does_not_change_when_training_goes_on(harness: Harness, mode: str, training: Training) -> None:
    """A saved mask would change if it shared its memory with the mask of the training."""
    session = start(harness, mode, training)
    session.step(training.gradients(0))
    saved, at_save = session.save(), Recorded.of(session)
    for number in range(1, training.steps):
        session.step(training.gradients(number))
    resumed = start(harness, mode, training)
    resumed.load(saved)
    assert_same(Recorded.of(resumed), at_save)


@checks("P2")
@for_all(trainings(), eager=20, compiled=2)
def test_masks_given_out_do_not_change_when_training_goes_on(harness: Harness, mode: str, training: Training) -> None:
    """The masks that the adapter gives to users are copies."""
    session = start(harness, mode, training)
    masks = session.masks()
    copies = {name: mask.copy() for name, mask in masks.items()}
    for number in range(training.steps):
        session.step(training.gradients(number))
    for name, mask in masks.items():
        assert (mask == copies[name]).all(), name


@checks("P2", "P3")
@for_all(trainings(), eager=10, compiled=1)
def test_a_state_of_another_recipe_is_refused(harness: Harness, mode: str, training: Training) -> None:
    """The message lists all differences, and the topology stays as it is."""
    session, other = start(harness, mode, training), training.recipe
    other = replace(other, seed=other.seed + 1, schedule=replace(training.schedule, end=training.schedule.end + 1))
    session.step(training.gradients(0))
    resumed = start(harness, mode, replace(training, recipe=other))
    masks = resumed.masks()
    with pytest.raises(ValueError, match=r"saved under another recipe: schedule was .*; seed was"):
        resumed.load(session.save())
    assert resumed.steps() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsityWarning)  # the harness may have loaded the weights before
        for name, mask in resumed.masks().items():
            np.testing.assert_array_equal(mask, masks[name])
