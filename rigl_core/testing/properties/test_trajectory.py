"""A whole training with the framework's own gradients has the oracle's masks after every update (rule P1)."""

from __future__ import annotations

import numpy as np
import pytest

from rigl_core.methods import RigL
from rigl_core.parts.drop_fractions import Cosine
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.plan import make_plan
from rigl_core.testing import models, oracle
from rigl_core.testing.checks import checks
from rigl_core.testing.harness import Array, Harness, Mask, OptimizerSpec
from rigl_core.testing.reference import ReferenceOptimizer

SCHEDULE = UpdateSchedule(end=66, every=3)
RECIPE = RigL(0.7, schedule=SCHEDULE, drop_fraction=Cosine(0.4), seed=7)
STEPS = 72


@checks("P1", "S1", "S4", "T1", "T2", "R1", "V1", "V2", "V4", "G1")
@pytest.mark.parametrize(
    "optimizer",
    [OptimizerSpec("sgd", lr=0.05, momentum=0.9), OptimizerSpec("adam", lr=0.01, weight_decay=0.01)],
    ids=lambda spec: spec.kind,
)
@pytest.mark.parametrize("model", models.MODELS)
def test_a_training_follows_the_oracle(harness: Harness, mode: str, model: str, optimizer: OptimizerSpec) -> None:
    """After each of 22 updates in float64 the masks are identical, and the weights at the end agree up to rounding."""
    if "float64" not in harness.dtypes:  # in float32, the rounding errors of frameworks differ and add up
        return
    layers, params = models.make_layers(model), models.make_params(model, seed=3)
    session = harness.start(params, layers, RECIPE, optimizer, dtype="float64", mode=mode)
    plan, masks = make_plan(RECIPE, layers), session.masks()
    reference = ReferenceOptimizer(optimizer, session.weights())
    updates = 0
    for step in range(STEPS):
        inputs, labels = models.make_batch(11, step)
        gradients = models.gradients(model, reference.weights, inputs, labels)
        session.learn(model, inputs, labels)
        if SCHEDULE.fires(step):
            old, masks = masks, {}
            for layer, k in zip(layers, plan.drop_counts[updates], strict=True):
                name = layer.name
                masks[name] = _moved(reference.weights[name], gradients[name], old[name], int(k))
                reference.keep({name: masks[name] & old[name]})
            updates += 1
        else:
            reference.step({name: np.where(masks.get(name, True), g, 0) for name, g in gradients.items()})
        for name, mask in session.masks().items():
            np.testing.assert_array_equal(mask, masks[name], err_msg=f"mask {name} after step {step}")
    assert updates == SCHEDULE.updates >= 20
    for name, weight in session.weights().items():
        np.testing.assert_allclose(weight, reference.weights[name], rtol=1e-7, atol=1e-9, err_msg=name)


def _moved(weight: Array, gradient: Array, mask: Mask, k: int) -> Mask:
    moved = oracle.rigl_mask(
        weight.reshape(-1).tolist(), gradient.reshape(-1).tolist(), mask.reshape(-1).tolist(), k, "float64"
    )
    return np.array(moved, np.bool_).reshape(mask.shape)
