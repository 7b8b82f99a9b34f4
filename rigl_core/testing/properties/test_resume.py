"""Properties of saving and resuming (rule P2)."""

from __future__ import annotations

from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Harness
from rigl_core.testing.recording import Recorded, assert_same, start
from rigl_core.testing.strategies import Training, trainings


@checks("P2")
@for_all(trainings(), eager=30, compiled=4)
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
@for_all(trainings(), eager=20, compiled=3)
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
@for_all(trainings(), eager=20, compiled=3)
def test_masks_given_out_do_not_change_when_training_goes_on(harness: Harness, mode: str, training: Training) -> None:
    """The masks that the adapter gives to users are copies."""
    session = start(harness, mode, training)
    masks = session.masks()
    copies = {name: mask.copy() for name, mask in masks.items()}
    for number in range(training.steps):
        session.step(training.gradients(number))
    for name, mask in masks.items():
        assert (mask == copies[name]).all(), name
