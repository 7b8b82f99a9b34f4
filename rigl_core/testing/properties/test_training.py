"""Properties of whole trainings: schedule, weights, optimizer state, the replaced step (rules S, V, R, Z, N2)."""

from __future__ import annotations

import numpy as np

from rigl_core.plan import make_plan
from rigl_core.testing import oracle
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Harness
from rigl_core.testing.recording import assert_same_bits, drop_count, start, steps
from rigl_core.testing.reference import ReferenceOptimizer
from rigl_core.testing.strategies import STILL, Training, trainings


@checks("N2", "B1", "Z1", "N1")
@for_all(trainings(), eager=25, compiled=2)
def test_initial_topology(harness: Harness, mode: str, training: Training) -> None:
    """The mask has the planned counts and is the oracle's random choice; weights outside it are 0, others untouched."""
    session = start(harness, mode, training)
    plan, masks, weights = make_plan(training.recipe, training.layers), session.masks(), session.weights()
    for layer, active in zip(plan.layers, plan.active, strict=True):
        expected = oracle.initial_mask(training.recipe.seed, layer.name, layer.size, active)
        mask = masks[layer.name]
        assert mask.reshape(-1).tolist() == expected
        given = training.params[layer.name]
        assert_same_bits(weights[layer.name], np.where(mask, given, np.zeros_like(given)), layer.name)
    assert_same_bits(weights["fc0.bias"], training.params["fc0.bias"], "fc0.bias")


@checks("S1", "S3", "S4", "T1", "T2", "T3", "P1", "B1")
@for_all(trainings(), eager=40, compiled=3)
def test_masks_follow_the_oracle_step_by_step(harness: Harness, mode: str, training: Training) -> None:
    """At every step the mask is the oracle's, from that step's weights and gradients; without an update it stays."""
    session = start(harness, mode, training)
    for step in steps(session, training):
        assert session.steps() == step.number + 1
        for layer in training.layers:
            mask = step.before.masks[layer.name]
            expected = mask.reshape(-1).tolist()
            if step.updates:
                k = drop_count(training, step.number, layer.name)
                weight, gradient = step.before.weights[layer.name], step.gradients[layer.name]
                expected = oracle.rigl_mask(
                    weight.reshape(-1).tolist(), gradient.reshape(-1).tolist(), expected, k, "float32"
                )
            actual = step.after.masks[layer.name].reshape(-1).tolist()
            assert actual == expected, f"{layer.name} at step {step.number}"


@checks("R1")
@for_all(trainings(), eager=25, compiled=2)
def test_update_replaces_the_gradient_step(harness: Harness, mode: str, training: Training) -> None:
    """At an update no dense parameter moves and no optimizer state advances; at other steps they do."""
    for step in steps(start(harness, mode, training), training):
        before, after = step.before.weights["fc0.bias"], step.after.weights["fc0.bias"]
        if step.updates:
            assert_same_bits(after, before, "fc0.bias at an update")
            for mine, other in zip(step.after.state["fc0.bias"], step.before.state["fc0.bias"], strict=True):
                assert_same_bits(mine, other, "optimizer state of fc0.bias at an update")
        else:
            assert not np.array_equal(after, before)


@checks("V1", "V2", "V3", "V4")
@for_all(trainings(), eager=40, compiled=3)
def test_weights_after_an_update(harness: Harness, mode: str, training: Training) -> None:
    """Survivors and regrown weights keep their bits; newly active weights and weights outside the mask are 0."""
    for step in steps(start(harness, mode, training), training):
        if step.updates:
            for layer in training.layers:
                survives = step.before.masks[layer.name] & step.after.masks[layer.name]
                weight = step.before.weights[layer.name]
                expected = np.where(survives, weight, np.zeros_like(weight))
                assert_same_bits(step.after.weights[layer.name], expected, f"{layer.name} at step {step.number}")


@checks("V1", "V2", "V3", "V4")
@for_all(trainings(), eager=80, compiled=3)
def test_optimizer_state_after_an_update(harness: Harness, mode: str, training: Training) -> None:
    """Momentum and both moments of Adam stay for survivors, and are 0 for all other connections."""
    for step in steps(start(harness, mode, training), training):
        if step.updates:
            for layer in training.layers:
                survives = step.before.masks[layer.name] & step.after.masks[layer.name]
                states = zip(step.before.state[layer.name], step.after.state[layer.name], strict=True)
                for before, after in states:
                    expected = np.where(survives, before, np.zeros_like(before))
                    assert_same_bits(after, expected, f"optimizer state of {layer.name} at step {step.number}")


@checks("Z1", "V3")
@for_all(trainings(), eager=40, compiled=3)
def test_zeros_outside_the_mask_after_every_step(harness: Harness, mode: str, training: Training) -> None:
    """Weights and per-weight state are +0 outside the mask, under momentum and weight decay."""
    for step in steps(start(harness, mode, training), training):
        for layer in training.layers:
            outside = ~step.after.masks[layer.name]
            for values in (step.after.weights[layer.name], *step.after.state[layer.name]):
                zeros = np.zeros_like(values[outside])
                assert_same_bits(values[outside], zeros, f"{layer.name} at step {step.number}")


@checks("N1", "S1", "S4", "T6", "P1")
@for_all(trainings(method="SET", optimizers=(STILL,)), eager=30, compiled=2)
def test_set_grows_at_random(harness: Harness, mode: str, training: Training) -> None:
    """The masks are the oracle's at every step. The learning rate is 0, so that the weights at an update are known."""
    update = 0
    for step in steps(start(harness, mode, training), training):
        for layer in training.layers:
            mask = step.before.masks[layer.name]
            expected = mask.reshape(-1).tolist()
            if step.updates and step.gradients[layer.name][mask].any():  # it has information (T6)
                k = drop_count(training, step.number, layer.name)
                weight = step.before.weights[layer.name].reshape(-1).tolist()
                expected = oracle.set_mask(weight, training.recipe.seed, layer.name, update, expected, k, "float32")
            actual = step.after.masks[layer.name].reshape(-1).tolist()
            assert actual == expected, f"{layer.name} at step {step.number}"
        update += step.updates


@checks("R2", "G1", "V1", "V2", "V3")
@for_all(trainings(method="SET"), eager=25, compiled=2)
def test_set_moves_after_the_gradient_step(harness: Harness, mode: str, training: Training) -> None:
    """Every step is a gradient step; weights that survive an update keep their values after that step."""
    session = start(harness, mode, training)
    reference = ReferenceOptimizer(training.optimizer, session.weights())
    for step in steps(session, training):
        before, after = step.before.masks, step.after.masks
        reference.step({name: np.where(before.get(name, True), g, 0) for name, g in step.gradients.items()})
        reference.keep({name: before[name] & after[name] for name in before})
        for name, expected in reference.weights.items():
            np.testing.assert_allclose(
                step.after.weights[name], expected, rtol=2e-4, atol=2e-5, err_msg=f"{name} at step {step.number}"
            )
