"""Properties of the gradient: ordinary steps see the sparse one, updates wait for a finite one (rules G1, T5, T6)."""

from __future__ import annotations

import numpy as np

from rigl_core.testing import oracle
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Array, Harness, OptimizerSpec, Session
from rigl_core.testing.recording import Recorded, assert_same, assert_same_bits, drop_count, start, steps
from rigl_core.testing.reference import ReferenceOptimizer
from rigl_core.testing.strategies import ADAM, CENTERED, SGD, Training, trainings

CLIPPED = OptimizerSpec("sgd", lr=0.0625, momentum=0.9, clip_norm=0.5)


@checks("G1")
@for_all(trainings(optimizers=(SGD, ADAM)), eager=30, compiled=2)
def test_ordinary_steps_are_those_of_a_sparse_network(harness: Harness, mode: str, training: Training) -> None:
    """Momentum and Adam work as if the inactive connections did not exist."""
    session = start(harness, mode, training)
    assert_steps_are_sparse(session, training, ReferenceOptimizer(training.optimizer, session.weights()))


@checks("G1")
@for_all(trainings(optimizers=(CLIPPED,)), eager=40, compiled=2)
def test_clipping_sees_the_sparse_gradient(harness: Harness, mode: str, training: Training) -> None:
    """The norm that clipping sees is that of the gradient of active connections."""
    session = start(harness, mode, training)
    assert_steps_are_sparse(session, training, ReferenceOptimizer(training.optimizer, session.weights()))


def assert_steps_are_sparse(session: Session, training: Training, reference: ReferenceOptimizer) -> None:
    """Assert that the weights equal those of the reference optimizer with the gradients of active connections."""
    for step in steps(session, training):
        masks = step.before.masks
        if step.updates:
            reference.keep({name: masks[name] & step.after.masks[name] for name in masks})
            continue
        reference.step({name: np.where(masks.get(name, True), g, 0) for name, g in step.gradients.items()})
        for name, expected in reference.weights.items():
            np.testing.assert_allclose(
                step.after.weights[name], expected, rtol=2e-4, atol=2e-5, err_msg=f"{name} at step {step.number}"
            )


@checks("Z1", "G1", "V3")
@for_all(trainings(optimizers=(CENTERED,)), eager=5, compiled=1)
def test_optimizers_that_are_not_element_wise_are_projected(harness: Harness, mode: str, training: Training) -> None:
    """With an optimizer that moves inactive weights, these and their state are 0 again after every step.

    Active weights are right.
    """
    session = start(harness, mode, training)
    reference = ReferenceOptimizer(training.optimizer, session.weights())
    for step in steps(session, training):
        before, after = step.before.masks, step.after.masks
        if not step.updates:
            reference.step({name: np.where(before.get(name, True), g, 0) for name, g in step.gradients.items()})
        reference.keep({name: before[name] & after[name] for name in before})
        for name, expected in reference.weights.items():
            actual, where = step.after.weights[name], f"{name} at step {step.number}"
            for values in (actual, *step.after.state[name]):
                assert not values[~after.get(name, np.True_)].any(), where
            np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5, err_msg=where)


@checks("G1", "Z1")
@for_all(trainings(), eager=25, compiled=2)
def test_nothing_outside_the_mask_reaches_the_optimizer(harness: Harness, mode: str, training: Training) -> None:
    """At ordinary steps, NaN and infinity in the inactive gradient change no bit of weights, state and masks."""
    clean, poisoned = start(harness, mode, training), start(harness, mode, training)
    for step in steps(clean, training):
        gradients = dict(step.gradients)
        if not step.updates:
            for number, layer in enumerate(training.layers):
                poison = np.float32("nan") if number else np.float32("-inf")
                gradients[layer.name] = np.where(step.before.masks[layer.name], gradients[layer.name], poison)
        poisoned.step(gradients)
        assert_same(Recorded.of(poisoned), step.after)


@checks("T5", "S1")
@for_all(trainings(optimizers=(SGD,)), eager=200, compiled=3)
def test_non_finite_gradients_defer_the_update(harness: Harness, mode: str, training: Training) -> None:
    """The topology waits for finite gradients, then moves by the count of the update that was due."""
    session, schedule = start(harness, mode, training), training.schedule
    due: int | None = None
    for number in range(training.steps):
        gradients, before, weights = training.gradients(number), session.masks(), session.weights()
        if oracle.fires(number, schedule.begin, schedule.end, schedule.every):
            due = number
        elif number >= schedule.end:
            due = None
        rng = np.random.default_rng((training.seed, number, 1))
        waits = bool(rng.random() < 0.5)
        if waits:
            _make_non_finite(gradients, before, rng)
        session.step(gradients)
        for layer in training.layers:
            expected = before[layer.name].reshape(-1).tolist()
            if due is not None and not waits:
                k = drop_count(training, due, layer.name)
                flat_weight = weights[layer.name].reshape(-1).tolist()
                expected = oracle.rigl_mask(
                    flat_weight, gradients[layer.name].reshape(-1).tolist(), expected, k, "float32"
                )
            assert session.masks()[layer.name].reshape(-1).tolist() == expected, f"{layer.name} at step {number}"
        if not waits:
            due = None


def _make_non_finite(gradients: dict[str, Array], masks: dict[str, Array], rng: np.random.Generator) -> None:
    """Put NaN or infinity into an inactive gradient, so that the weights stay finite; or NaN into that of the bias."""
    places = [(name, int(i)) for name, mask in masks.items() for i in np.flatnonzero(~mask.reshape(-1))]
    inactive = bool(places) and rng.random() < 0.5
    name, i = places[rng.integers(len(places))] if inactive else ("fc0.bias", 0)
    flat = gradients[name].reshape(-1).copy()
    flat[i] = rng.choice([np.nan, np.inf, -np.inf]) if inactive else np.nan
    gradients[name] = flat.reshape(gradients[name].shape)


@checks("T6")
@for_all(trainings(), eager=25, compiled=2)
def test_unused_layers_keep_their_topology(harness: Harness, mode: str, training: Training) -> None:
    """A layer without a gradient keeps its topology and weights; the other layer moves at every update."""
    if not harness.unused_layers:
        return
    session = start(harness, mode, training)
    unused, used = (layer.name for layer in training.layers)
    for number in range(training.steps):
        masks, weights = session.masks(), session.weights()
        gradients: dict[str, Array | None] = {**training.gradients(number), unused: None}
        session.step(gradients)
        np.testing.assert_array_equal(session.masks()[unused], masks[unused])
        assert_same_bits(session.weights()[unused], weights[unused], unused)
        schedule = training.schedule
        if oracle.fires(number, schedule.begin, schedule.end, schedule.every):
            gradient = gradients[used]
            assert gradient is not None
            expected = oracle.rigl_mask(
                weights[used].reshape(-1).tolist(),
                gradient.reshape(-1).tolist(),
                masks[used].reshape(-1).tolist(),
                drop_count(training, number, used),
                "float32",
            )
            assert session.masks()[used].reshape(-1).tolist() == expected
