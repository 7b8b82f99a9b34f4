"""Properties of the optimizer state that a new weight gets (rules V1 and V3), also if it was there before."""

from __future__ import annotations

import numpy as np

from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Harness
from rigl_core.testing.method_trainings import method_trainings
from rigl_core.testing.properties.test_gradients import assert_steps_are_sparse
from rigl_core.testing.recording import assert_same_bits, start, steps
from rigl_core.testing.reference import ReferenceOptimizer
from rigl_core.testing.strategies import ADAGRAD, ADAM, SGD, Training


@checks("V1", "V3", "V4")
@for_all(method_trainings(["RigL"], optimizers=(ADAGRAD,)), eager=3, compiled=1)
def test_new_weights_get_the_state_of_the_optimizer(harness: Harness, mode: str, training: Training) -> None:
    """Adagrad's accumulators are 0.1 outside the mask, and for grown connections; survivors keep theirs."""
    for step in steps(start(harness, mode, training), training):
        for layer in training.layers:
            before, after = step.before.masks[layer.name], step.after.masks[layer.name]
            old, new = step.before.state[layer.name], step.after.state[layer.name]
            where = f"optimizer state of {layer.name} after step {step.number}"
            for values in new:
                survives = before & after if step.updates else after
                fresh = np.full_like(values, 0.1)
                assert_same_bits(values[~survives], fresh[~survives], where)
            if step.updates:
                for mine, other in zip(new, old, strict=True):
                    assert_same_bits(mine[before & after], other[before & after], where)
            assert new or step.number < training.steps - 1, f"{layer.name} has no optimizer state"


@checks("V1", "V3", "G1", "N2")
@for_all(method_trainings(["RigL"], optimizers=(SGD, ADAM)), eager=4, compiled=1)
def test_state_that_was_there_before_becomes_fresh_outside(harness: Harness, mode: str, training: Training) -> None:
    """The optimizer has made dense steps before. Active weights go on with their state, the others start anew."""
    before = [training.gradients(100 + number) for number in range(2)]
    session = start(harness, mode, training, dense_steps=before)
    reference = ReferenceOptimizer(training.optimizer, training.params)
    for gradients in before:
        reference.step(gradients)
    reference.keep(session.masks())
    for name, mask in session.masks().items():
        for values in session.optimizer_state()[name]:
            assert not values[~mask].any(), f"optimizer state of {name}"
            assert values[mask].any(), f"optimizer state of {name} is lost"
    assert_steps_are_sparse(session, training, reference)
