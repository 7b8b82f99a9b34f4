"""Properties of the optimizer state that a new weight gets (rules V1 and V3)."""

from __future__ import annotations

import numpy as np

from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Harness
from rigl_core.testing.method_trainings import method_trainings
from rigl_core.testing.recording import assert_same_bits, start, steps
from rigl_core.testing.strategies import ADAGRAD, Training


@checks("V1", "V3", "V4")
@for_all(method_trainings(["RigL"], optimizers=(ADAGRAD,)), eager=5, compiled=1)
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
