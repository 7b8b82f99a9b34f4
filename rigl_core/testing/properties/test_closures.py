"""Properties of optimizers that evaluate the loss several times in one step (rule R1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Harness
from rigl_core.testing.method_trainings import method_trainings
from rigl_core.testing.recording import Recorded, assert_same, start
from rigl_core.testing.strategies import Training


@checks("R1", "R2", "M9")
@pytest.mark.parametrize("method", ["RigL", "SNFS", "SET as published"])
def test_one_update_a_step_however_often_the_loss_is_evaluated(harness: Harness, mode: str, method: str) -> None:
    """A training whose optimizer evaluates the loss twice has the bits of one that does so once."""

    def check(harness: Harness, mode: str, training: Training) -> None:
        twice = replace(training, optimizer=replace(training.optimizer, evaluations=2))
        sessions = start(harness, mode, twice), start(harness, mode, training)
        for number in range(training.steps):
            for session in sessions:
                session.step(training.gradients(number))
            assert sessions[0].steps() == sessions[1].steps() == number + 1
            assert_same(*map(Recorded.of, sessions))

    for_all(method_trainings([method]), eager=2, compiled=1)(check)(harness, mode)
