"""Properties of layers that hold their active weights alone (rules A1, A2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import strategies as st

from rigl_core.methods import SET, RigL
from rigl_core.model.layers import Layer
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.recipe import Recipe
from rigl_core.testing import oracle
from rigl_core.testing.checks import checks, for_all, runs_where
from rigl_core.testing.fixed import fixed_layers, fixed_training
from rigl_core.testing.harness import Array, Harness, Session
from rigl_core.testing.method_trainings import MOVING, STATIC, method_trainings
from rigl_core.testing.recording import Recorded, assert_same_bits, start, steps
from rigl_core.testing.strategies import STILL, Training

NAME, SHAPE = "fc0.weight", (4, 6)
WIDE: Mapping[str, Callable[..., Recipe]] = {"RigL": RigL, "SET": SET}
Samples = list[tuple[Array, Array]]

in_active_mode = runs_where(lambda harness, mode, method: mode == "active")


def trainings_by(method: str | None = None) -> st.SearchStrategy[Training]:
    """Trainings by one method or any, in which only updates change weights: optimizers may round in other ways."""
    return method_trainings((*MOVING, *STATIC) if method is None else [method], optimizers=[STILL])


@in_active_mode
@checks("A1", "P1")
@for_all(trainings_by, eager=3, compiled=30, methods=(*MOVING, *STATIC))
def test_masks_are_those_of_the_masked_form(harness: Harness, mode: str, training: Training) -> None:
    """Given equal gradients, step by step: every mask and every weight, bit for bit."""
    assert_as_with_masks(harness, mode, training)


@in_active_mode
@checks("A1", "T3")
@pytest.mark.parametrize("method", WIDE)
def test_ties_in_wide_layers(harness: Harness, mode: str, method: str) -> None:
    """Layers that a kernel may cut into parts, with inputs first or last; most weights and gradients are tied."""
    own = WIDE[method](0.8, schedule=UpdateSchedule(end=4, every=1), drop_fraction=Constant(0.4))
    wide = [Layer("fc0.weight", (3, 300), (1,), (0,)), Layer("fc1.weight", (300, 3), (0,), (1,))]
    wide += [Layer("conv2.weight", (4, 40, 3, 2), (1,), (0,)), Layer("conv3.weight", (3, 2, 40, 4), (2,), (3,))]
    training = fixed_training(own, wide, steps=4)
    first = {name: np.round(2 * weight) / 2 for name, weight in training.params.items()}
    assert_as_with_masks(harness, mode, replace(training, params=first))


def assert_as_with_masks(harness: Harness, mode: str, training: Training) -> None:
    """Assert that masks and weights are those of the harness's first mode, after every step."""
    active = steps(start(harness, mode, training), training)
    masked = steps(start(harness, harness.modes[0], training), training)
    for one, other in zip(active, masked, strict=True):
        for name, mask in one.after.masks.items():
            np.testing.assert_array_equal(mask, other.after.masks[name], err_msg=f"{name}, step {one.number}")
        for name, weight in one.after.weights.items():
            assert_same_bits(weight, other.after.weights[name], f"{name}, step {one.number}")


@in_active_mode
@checks("A2", "T2", "V4")
def test_the_gradient_of_samples_has_a_fixed_order(harness: Harness, mode: str) -> None:
    """Sums of numbers from 1 to 1e8, of two uses of a layer, in which another order would grow other connections."""
    session, rng, differs = _session(harness, mode), np.random.default_rng(3), 0
    for _ in range(8):
        samples = [_drawn(rng, batch) for batch in (5, 3)]
        before = Recorded.of(session)
        session.step_samples({NAME: samples})
        expected, other = (_moved(before, order) for order in (samples, samples[::-1]))
        after = Recorded.of(session)
        assert after.masks[NAME].reshape(-1).tolist() == expected
        both = before.masks[NAME] & after.masks[NAME]
        assert_same_bits(after.weights[NAME][both], before.weights[NAME][both], "weights of survivors")
        differs += expected != other
    assert differs, "no case depends on the order"


@in_active_mode
@checks("A2", "T5")
def test_an_update_waits_for_sums_that_are_finite(harness: Harness, mode: str) -> None:
    """The samples are finite, and so are the gradients of all active weights; the sum of one inactive weight is not."""
    session = _session(harness, mode)
    mask = session.masks()[NAME]
    row, column = np.argwhere(~mask)[0]
    inputs, outputs = np.zeros((1, SHAPE[1]), np.float32), np.zeros((1, SHAPE[0]), np.float32)
    inputs[0, column] = outputs[0, row] = 1e30
    session.step_samples({NAME: [(inputs, outputs)]})
    np.testing.assert_array_equal(session.masks()[NAME], mask)
    session.step_samples({NAME: [_drawn(np.random.default_rng(4), 5)]})
    assert (session.masks()[NAME] != mask).any()


def _session(harness: Harness, mode: str) -> Session:
    """RigL with updates at every second step, of which the next may wait for the step between."""
    harness.check_has("samples")
    recipe = RigL(0.5, schedule=UpdateSchedule(end=100, every=1), drop_fraction=Constant(0.5))
    return start(harness, mode, fixed_training(recipe, fixed_layers(SHAPE)))


def _drawn(rng: np.random.Generator, batch: int) -> tuple[Array, Array]:
    sizes = np.array([0, 1, 3, 1e4, 1e8], np.float32)
    inputs = rng.choice(sizes, (batch, SHAPE[1])) * rng.choice(np.array([-1, 1], np.float32), (batch, SHAPE[1]))
    return inputs, rng.choice(np.array([-1, 1], np.float32), (batch, SHAPE[0]))


def _moved(before: Recorded, samples: Samples) -> list[bool]:
    """The mask after an update, from a gradient that is summed sample by sample."""
    gradient = []
    for row in range(SHAPE[0]):
        for column in range(SHAPE[1]):
            total = np.float32(0)
            for inputs, outputs in samples:
                for x, dy in zip(inputs[:, column], outputs[:, row], strict=True):
                    total = np.float32(total + np.float32(x * dy))
            gradient.append(float(total))
    mask = before.masks[NAME].reshape(-1).tolist()
    return oracle.rigl_mask(before.weights[NAME].reshape(-1).tolist(), gradient, mask, sum(mask) // 2, "float32")
