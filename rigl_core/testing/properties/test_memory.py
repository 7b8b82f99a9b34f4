"""Properties of shadow weights, noise and momentum (rules M6, M8 and M9)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rigl_core.testing import score_oracle
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Harness
from rigl_core.testing.method_memory import remember
from rigl_core.testing.method_trainings import SHADOW, method_trainings
from rigl_core.testing.properties.test_methods import check_update
from rigl_core.testing.recording import recorded, start, steps
from rigl_core.testing.reference import ReferenceOptimizer
from rigl_core.testing.strategies import SGD, STILL, Training


@checks("M6")
@for_all(method_trainings(SHADOW, optimizers=(SGD,)), eager=30, compiled=2)
def test_shadow_weights_go_on_learning(harness: Harness, mode: str, training: Training) -> None:
    """All weights take the optimizer's step with the dense gradient; the network sees only weights inside the mask."""
    session = start(harness, mode, training)
    reference = ReferenceOptimizer(training.optimizer, training.params)
    for step in steps(session, training):
        reference.step(dict(step.gradients))
        for name, whole in reference.weights.items():
            mask = step.after.masks.get(name, np.True_)
            np.testing.assert_allclose(
                step.after.weights[name], np.where(mask, whole, 0), rtol=2e-4, atol=2e-5, err_msg=name
            )


@checks("M8", "N1")
@for_all(method_trainings(["Deep R"], optimizers=(SGD,)), eager=20, compiled=2)
def test_noise_and_pull_are_part_of_the_gradient(harness: Harness, mode: str, training: Training) -> None:
    """Active weights take a step with gradient + l1 * sign + noise; the first update comes after the last step."""
    assert training.recipe.schedule is not None
    late = replace(training.recipe.schedule, begin=training.steps, end=training.steps + 1)
    training = replace(training, recipe=replace(training.recipe, schedule=late, l1=0.125, noise=0.5))
    session = start(harness, mode, training)
    reference = ReferenceOptimizer(training.optimizer, session.weights())
    masks = session.masks()
    for number in range(training.steps):
        gradients = training.gradients(number)
        changed = dict(gradients)
        for layer in training.layers:
            drawn = score_oracle.noise(training.recipe.seed, layer.name, number, layer.size)
            pull = 0.125 * np.sign(session.weights()[layer.name])
            noisy = gradients[layer.name] + pull + 0.5 * np.reshape(drawn, layer.shape)
            changed[layer.name] = np.where(masks[layer.name], noisy, 0)
        session.step(gradients)
        reference.step(changed)
        for name, weight in session.weights().items():
            np.testing.assert_allclose(weight, reference.weights[name], rtol=2e-4, atol=2e-4, err_msg=name)


@checks("M9", "T5")
@for_all(method_trainings(["SNFS, no redistribution"], optimizers=(STILL,)), eager=15, compiled=2)
def test_momentum_recovers_from_non_finite_gradients(harness: Harness, mode: str, training: Training) -> None:
    """Numbers that are not finite in a gradient count as 0 in the momentum; no update waits for finite gradients."""
    session, clean = start(harness, mode, training), start(harness, mode, training)
    rng = np.random.default_rng(training.seed)
    for number in range(training.steps):
        gradients = training.gradients(number)
        spoiled = {name: gradient.copy() for name, gradient in gradients.items()}
        masks = session.masks()
        for layer in training.layers:
            outside = np.flatnonzero(~masks[layer.name].reshape(-1))
            if outside.size:
                place = rng.choice(outside)
                spoiled[layer.name].reshape(-1)[place] = rng.choice([np.nan, np.inf, -np.inf])
                gradients[layer.name].reshape(-1)[place] = 0
        session.step(spoiled)
        clean.step(gradients)
        for name, mask in clean.masks().items():
            np.testing.assert_array_equal(session.masks()[name], mask, err_msg=f"{name} at step {number}")


@checks("M9", "T4")
@for_all(method_trainings(["SNFS, no redistribution"], optimizers=(STILL,), replaces=True), eager=15, compiled=1)
def test_subnormal_momentum_counts_as_zero(harness: Harness, mode: str, training: Training) -> None:
    """Gradients near the smallest normal number give momentum below it, which some frameworks flush to 0."""
    memory, session = remember(training), start(harness, mode, training)
    for number in range(training.steps):
        gradients = {name: gradient * np.float32(2.0**-124) for name, gradient in training.gradients(number).items()}
        step = recorded(session, number, gradients, updates=training.schedule.fires(number))
        memory.see(gradients)
        if step.updates:
            check_update(memory, step, dict(step.before.weights))
