"""Properties of arrays: new ones with the same values, in place of the old ones, change nothing (rules P1, Z1, P5)."""

from __future__ import annotations

import warnings

from hypothesis.strategies import SearchStrategy

from rigl_core.model.warnings import SparsityWarning
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Harness
from rigl_core.testing.method_trainings import method_trainings
from rigl_core.testing.recording import Recorded, assert_same, start
from rigl_core.testing.strategies import Training


def trainings_by(method: str = "RigL") -> SearchStrategy[Training]:
    """Trainings by one method."""
    return method_trainings([method])


@checks("P1", "Z1", "P5")
@for_all(trainings_by, eager=2, compiled=1, methods=("RigL", "DNW"))
def test_new_arrays_with_the_same_values_change_nothing(harness: Harness, mode: str, training: Training) -> None:
    """They come before every step. The training goes on with the same bits, and nothing is told."""
    harness.check_has("new arrays")
    session, other = start(harness, mode, training), start(harness, mode, training)
    for number in range(training.steps):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", SparsityWarning)
            session.replace(session.weights())
            session.step(training.gradients(number))
            found = Recorded.of(session)
        other.step(training.gradients(number))
        assert_same(found, Recorded.of(other))
        assert not told, str(told[0].message)
