"""Properties of gradients that come in micro-batches (rule G2)."""

from __future__ import annotations

import numpy as np

from rigl_core.methods import RigL
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing import oracle
from rigl_core.testing.checks import checks
from rigl_core.testing.fixed import fixed_layers, fixed_training
from rigl_core.testing.harness import Array, Harness, OptimizerSpec
from rigl_core.testing.recording import Recorded, assert_same_bits

NAME = "fc0.weight"
LR = 0.0625


@checks("G2", "T2", "R1", "S1")
def test_an_update_reads_the_gradients_of_all_micro_batches(harness: Harness, mode: str) -> None:
    """Two micro-batches are one step: updates grow by their mean, and so do gradient steps; the first moves nothing."""
    recipe = RigL(0.5, schedule=UpdateSchedule(end=3, every=2), drop_fraction=Constant(0.5))
    training = fixed_training(recipe, fixed_layers((4, 6)), optimizer=OptimizerSpec("sgd", lr=LR))
    start = (training.params, training.layers, recipe, training.optimizer)
    session = harness.start(*start, mode=mode, micro_batches=2)
    for number in range(3):
        parts = [{name: np.round(4 * g) / 4 for name, g in training.gradients(2 * number + i).items()} for i in (0, 1)]
        mean: dict[str, Array] = {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}
        before = Recorded.of(session)
        session.step(parts[0])
        assert session.steps() == number
        assert (session.masks()[NAME] == before.masks[NAME]).all(), f"the mask has moved early, in step {number}"
        for name, weight in session.weights().items():
            assert_same_bits(weight, before.weights[name], f"{name} before the last micro-batch")
        session.step(parts[1])
        assert session.steps() == number + 1
        expected = before.masks[NAME].reshape(-1).tolist()
        if number % 2 == 0:
            flat_weight, flat_gradient = (array[NAME].reshape(-1).tolist() for array in (before.weights, mean))
            expected = oracle.rigl_mask(flat_weight, flat_gradient, expected, sum(expected) // 2, "float32")
        else:
            moved = before.weights["fc0.bias"] - LR * mean["fc0.bias"]
            np.testing.assert_allclose(session.weights()["fc0.bias"], moved, rtol=1e-6)
        assert session.masks()[NAME].reshape(-1).tolist() == expected, f"step {number}"
