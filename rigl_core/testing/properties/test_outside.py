"""Properties of what other code writes outside the masks, and of layers of one axis."""

from __future__ import annotations

import numpy as np

from rigl_core.methods import RigL
from rigl_core.model.layers import Layer
from rigl_core.parts.distributions import Uniform
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing import oracle
from rigl_core.testing.checks import checks, runs_where, without_warnings
from rigl_core.testing.fixed import fixed_layers, fixed_training
from rigl_core.testing.harness import Harness, Mask, Session
from rigl_core.testing.properties.test_methods import check_choices
from rigl_core.testing.recording import start
from rigl_core.testing.strategies import SGD, Training

NAME = "fc0.weight"


@checks("Z1", "T1")
@without_warnings()
def test_what_is_written_outside_is_gone_after_the_next_update(harness: Harness, mode: str) -> None:
    """The adapter zeroes it at that update or before, or refuses a step; written values never count as active."""
    recipe = RigL(0.5, schedule=UpdateSchedule(begin=2, end=4, every=2), drop_fraction=Constant(0.5))
    training = fixed_training(recipe, fixed_layers((4, 4)), optimizer=SGD)
    session = start(harness, mode, training)
    session.step(training.gradients(0))
    mask, weights = session.masks()[NAME], session.weights()
    session.write({**weights, NAME: np.where(mask, weights[NAME], np.float32(64))})
    try:
        expected = _after_the_update(session, training, mask)
        masks = session.masks()
    except (ValueError, RuntimeError):
        return
    assert masks[NAME].reshape(-1).tolist() == expected
    assert not session.weights()[NAME][~masks[NAME]].any()


def _after_the_update(session: Session, training: Training, mask: Mask) -> list[bool]:
    """Make an ordinary step and an update; the oracle's mask by the weights that were active."""
    session.step(training.gradients(1))
    weight, gradient = session.weights()[NAME].reshape(-1), training.gradients(2)[NAME].reshape(-1)
    session.step(training.gradients(2))
    return oracle.rigl_mask(weight.tolist(), gradient.tolist(), mask.reshape(-1).tolist(), 4, "float32")


@runs_where(lambda harness, mode, method: mode == "eager")
@checks("V1", "V3", "Z1", "M1", "P1")
@without_warnings()
def test_layers_of_one_axis(harness: Harness, mode: str) -> None:
    """A vector can be a layer, if the user names it; a matrix beside it shares the budget."""
    layers = (Layer("norm0.weight", (24,)), *fixed_layers((4, 6)))
    schedule = UpdateSchedule(begin=1, end=6, every=2)
    recipe = RigL(0.5, schedule=schedule, distribution=Uniform(first_dense=False))
    training = fixed_training(recipe, layers, steps=5, optimizer=SGD)
    check_choices(harness, mode, training)
