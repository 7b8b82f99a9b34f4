"""Properties of arrays that lie in memory in another order than C's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing.checks import checks, is_fast, without_warnings
from rigl_core.testing.fixed import fixed_layers, fixed_training
from rigl_core.testing.harness import Array, Harness
from rigl_core.testing.method_trainings import MOVING
from rigl_core.testing.recording import Recorded, assert_same, start
from rigl_core.testing.strategies import SGD

METHODS = ("RigL", "RigL, blocks of 2", "RigL, gradient step", "RigL, all layers", "SNFS", "DNW", "SET as published")
"""Methods that read, remember and write all kinds of arrays."""


def in_other_order(array: Array) -> Array:
    """The same numbers in Fortran order; those of four axes with the second one, the channels, last in memory."""
    if array.ndim < 4:
        return np.asfortranarray(array)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


@checks("T3", "V3", "Z1", "P1", "P2")
@pytest.mark.parametrize("method", METHODS)
@without_warnings()
def test_the_order_in_memory_changes_nothing(harness: Harness, mode: str, method: str) -> None:
    """Weights, state and masks have the same bits, also after a load of what was saved in C order."""
    if not is_fast(harness, mode):
        return
    recipe = MOVING[method](0.5, UpdateSchedule(end=6, every=2))
    training = fixed_training(recipe, fixed_layers((8, 4), (4, 4, 2, 2)), optimizer=SGD)
    other = replace(training, params={name: in_other_order(param) for name, param in training.params.items()})
    session, moved = start(harness, mode, training), start(harness, mode, other)
    assert_same(Recorded.of(moved), Recorded.of(session))
    for number in range(7):
        gradients = training.gradients(number)
        session.step(gradients)
        moved.step({name: in_other_order(gradient) for name, gradient in gradients.items()})
        assert_same(Recorded.of(moved), Recorded.of(session))
        if number == 3:
            moved = start(harness, mode, other)
            moved.load(session.save())
            assert_same(Recorded.of(moved), Recorded.of(session))
