"""Properties of updates that wait for finite gradients (rule T5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing.checks import checks, for_all, in_turn, runs_where
from rigl_core.testing.harness import Array, Harness, Mask, Session
from rigl_core.testing.method_memory import remember
from rigl_core.testing.method_trainings import method_trainings
from rigl_core.testing.properties.test_methods import assert_masks_stay, check_update
from rigl_core.testing.recording import Recorded, Step, assert_same, start
from rigl_core.testing.strategies import SGD, STILL, Training, trainings

WAITING = ("MEST", "SNIP", "RigL", "RigL, gradient step", "RigL, all layers", "RigL 2:4")
"""Methods whose updates read a gradient: to drop, to grow, for grown weights, in one layer, in a pool, in groups."""
HURRYING = ("SET", "SNFS", "gradual pruning")
"""Methods whose updates read none: weights, random numbers or the momentum decide."""


def not_finite(gradients: dict[str, Array], masks: dict[str, Mask]) -> dict[str, Array]:
    """Gradients with a NaN at an inactive weight, so that no weight changes by it; else at the bias."""
    name = next((name for name, mask in masks.items() if not mask.all()), "fc0.bias")
    place = int(np.flatnonzero(~masks[name])[0]) if name in masks else 0
    spoiled = gradients[name].copy()
    spoiled.reshape(-1)[place] = np.nan
    return {**gradients, name: spoiled}


@runs_where(in_turn([*WAITING, *HURRYING]))
@checks("T5", "M1", "M9")
@pytest.mark.parametrize("method", [*WAITING, *HURRYING])
def test_updates_wait_for_the_gradients_that_they_read(harness: Harness, mode: str, method: str) -> None:
    """The update is made at the next step, by the counts of its own time; methods that read no gradient do not wait."""

    def check(harness: Harness, mode: str, training: Training) -> None:
        begin = training.schedule.begin
        one_update = replace(training.recipe, schedule=UpdateSchedule(begin=begin, end=begin + 3, every=3))
        training = replace(training, recipe=one_update)
        memory, session = remember(training), start(harness, mode, training)
        for number in range(begin + 2):
            before, gradients = Recorded.of(session), training.gradients(number)
            spoiled = not_finite(gradients, session.masks()) if number == begin else gradients
            session.step(spoiled)
            step = Step(number, gradients, before, Recorded.of(session), number >= begin)
            memory.see({name: np.where(np.isfinite(g), g, 0) for name, g in spoiled.items()})
            if number == begin + (method in WAITING):
                check_update(memory, step, dict(before.weights))
            else:
                assert_masks_stay(step)

    for_all(method_trainings([method], optimizers=(STILL,), replaces=True), eager=6, compiled=1)(check)(harness, mode)


@checks("T5", "G1")
@for_all(trainings(optimizers=(SGD,)), eager=25, compiled=1)
def test_the_step_of_an_update_that_waits_is_an_ordinary_one(harness: Harness, mode: str, training: Training) -> None:
    """Weights and optimizer state change as in a training whose first update comes one step later."""
    begin = training.schedule.begin
    later = replace(training.schedule, begin=begin + 1, end=training.schedule.end + 1)
    waiting = start(harness, mode, training)
    ordinary = start(harness, mode, replace(training, recipe=replace(training.recipe, schedule=later)))
    for number in range(begin + 1):
        gradients = training.gradients(number)
        gradients = not_finite(gradients, waiting.masks()) if number == begin else gradients
        for session in (waiting, ordinary):
            session.step(gradients)
        assert_same(Recorded.of(waiting), Recorded.of(ordinary))


@checks("P2", "T5")
@for_all(trainings(optimizers=(SGD,)), eager=20, compiled=1)
def test_a_stop_while_an_update_waits(harness: Harness, mode: str, training: Training) -> None:
    """A state that waits goes on so in any session, and so does one that does not wait, also if the session does."""
    stop = training.schedule.begin + 1
    waiting, done = (start(harness, mode, training) for _ in range(2))
    _train(waiting, training, range(stop), waits=[stop - 1])
    _train(done, training, range(stop))
    saved = waiting.save(), done.save()
    onto_done, onto_waiting, onto_new = (start(harness, mode, training) for _ in range(3))
    _train(onto_done, training, range(stop))
    _train(onto_waiting, training, range(stop), waits=[stop - 1])
    onto_done.load(saved[0])
    onto_new.load(saved[0])
    onto_waiting.load(saved[1])
    for session in (waiting, done, onto_done, onto_new, onto_waiting):
        _train(session, training, range(stop, min(stop + 3, training.steps)))
    for session in (onto_done, onto_new):
        assert_same(Recorded.of(session), Recorded.of(waiting))
    assert_same(Recorded.of(onto_waiting), Recorded.of(done))


def _train(session: Session, training: Training, numbers: Sequence[int], waits: Sequence[int] = ()) -> None:
    for number in numbers:
        gradients = training.gradients(number)
        session.step(not_finite(gradients, session.masks()) if number in waits else gradients)
