"""Properties of arrays that lie in memory in another order than C's, or with gaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing.checks import checks, is_fast, runs_where, without_warnings
from rigl_core.testing.fixed import fixed_layers, fixed_training
from rigl_core.testing.harness import Array, Harness
from rigl_core.testing.layout import LAYOUTS
from rigl_core.testing.method_trainings import MOVING
from rigl_core.testing.recording import Recorded, assert_same, start
from rigl_core.testing.strategies import SGD

METHODS = ("RigL", "RigL, blocks of 2", "RigL, gradient step", "RigL, all layers", "SNFS", "DNW", "SET as published")
"""Methods that read, remember and write all kinds of arrays."""


@runs_where(lambda harness, mode, method: is_fast(harness, mode))
@checks("T3", "V3", "Z1", "P1", "P2")
@pytest.mark.parametrize("method", METHODS)
@without_warnings()
def test_places_in_memory_change_nothing(harness: Harness, mode: str, method: str) -> None:
    """Weights, state and masks have the same bits, also after a load of what was saved in C order."""
    for layout in LAYOUTS.values():
        _check(harness, mode, method, layout)


def _check(harness: Harness, mode: str, method: str, layout: Callable[[Array], Array]) -> None:
    recipe = MOVING[method](0.5, UpdateSchedule(end=6, every=2))
    training = fixed_training(recipe, fixed_layers((8, 4), (4, 4, 2, 2)), optimizer=SGD)
    other = replace(training, params={name: layout(param) for name, param in training.params.items()})
    session, moved = start(harness, mode, training), start(harness, mode, other)
    assert_same(Recorded.of(moved), Recorded.of(session))
    for number in range(7):
        gradients = training.gradients(number)
        session.step(gradients)
        moved.step({name: layout(gradient) for name, gradient in gradients.items()})
        assert_same(Recorded.of(moved), Recorded.of(session))
        if number == 3:
            moved = start(harness, mode, other)
            moved.load(session.save())
            assert_same(Recorded.of(moved), Recorded.of(session))
