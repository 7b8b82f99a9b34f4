"""One property for each rule about steps and gradients; see rules_of_topology.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from conformance_tests.peers.cases import (
    ADAM,
    FROZEN,
    PLAIN,
    by,
    distinct,
    outside,
    smallest,
    walk,
)
from rigl_core.testing import (
    Harness,
    OptimizerSpec,
    ReferenceOptimizer,
    Step,
    Training,
    checks,
    start,
)

DECAY = OptimizerSpec("sgd", lr=0.0625, momentum=0.9, weight_decay=0.125)
CLIPPED = replace(PLAIN, clip_norm=0.25)


def updates(harness: Harness, mode: str, training: Training) -> Iterator[tuple[Step, str]]:
    """The layers of each step that updates; what an update drops does not grow again."""
    for step in walk(start(harness, mode, training), training, outside(training)):
        for name in step.before.masks:
            if step.updates:
                yield step, name


@checks("R1")
@smallest(by(PLAIN))
def test_an_update_replaces_the_gradient_step(harness: Harness, mode: str, training: Training) -> None:
    for step, _ in updates(harness, mode, training):
        same = np.array_equal(step.before.weights["fc0.bias"], step.after.weights["fc0.bias"])
        assert same, f"the dense fc0.bias moves in step {step.number}, which updates the topology"


@checks("R2")
@smallest(by(PLAIN, method="SET"))
def test_set_updates_after_the_gradient_step(harness: Harness, mode: str, training: Training) -> None:
    for step, _ in updates(harness, mode, training):
        same = np.array_equal(step.before.weights["fc0.bias"], step.after.weights["fc0.bias"])
        assert not same, f"there is no gradient step in step {step.number}, which updates the topology"


@checks("G1")
@smallest(by(PLAIN, DECAY, ADAM, CLIPPED, late=True))
def test_ordinary_steps_are_those_of_a_sparse_network(harness: Harness, mode: str, training: Training) -> None:
    assert_sparse_steps(harness, mode, training)


@checks("G1")
@smallest(by(PLAIN, ADAM, CLIPPED, late=True))
def test_nan_outside_the_mask_reaches_no_optimizer(harness: Harness, mode: str, training: Training) -> None:
    assert_sparse_steps(harness, mode, training, outside=np.float32("nan"))


def assert_sparse_steps(harness: Harness, mode: str, training: Training, outside: np.float32 | None = None) -> None:
    """Assert that weights inside the mask are those of a sparse network, whatever the gradients outside are."""
    session = start(harness, mode, training)
    reference, masks = ReferenceOptimizer(training.optimizer, session.weights()), session.masks()
    for number in range(training.steps):
        gradients = distinct(training, number)
        reference.step({name: np.where(masks.get(name, True), g, 0) for name, g in gradients.items()})
        if outside is not None:
            gradients = {name: np.where(masks.get(name, True), g, outside) for name, g in gradients.items()}
        session.step(gradients)
    for name, weight in session.weights().items():
        mask, expected = masks.get(name, np.ones(weight.shape, bool)), reference.weights[name]
        text = f"{name} is not that of a sparse network" + (", with NaN in gradients outside the mask" * bool(outside))
        assert np.allclose(weight[mask], expected[mask], rtol=2e-4, atol=2e-5), text


@checks("G2")
@smallest(by(FROZEN))
def test_an_update_reads_the_gradient_of_its_step(harness: Harness, mode: str, training: Training) -> None:
    """With other gradients in earlier steps, and the same weights, the first update is the same."""
    first = training.schedule.begin
    after = []
    for earlier in (1, 2):
        run = walk(
            start(harness, mode, training),
            replace(training, steps=first + 1),
            lambda number, _, earlier=earlier: dict(distinct(training, 0 if number == first else earlier)),
        )
        after.append([*run][-1].after.masks)
    same = all((after[1][name] == mask).all() for name, mask in after[0].items())
    assert same, "gradients of earlier steps decide what the first update grows"


@checks("Z1")
@smallest(by(PLAIN, replace(PLAIN, centered=True), late=True))
def test_zeros_outside_the_mask_come_back(harness: Harness, mode: str, training: Training) -> None:
    """Under momentum, an optimizer that is not element-wise, and weights that other code wrote outside the mask."""
    session = start(harness, mode, training)
    session.write({name: np.ones_like(weight) for name, weight in training.params.items()})
    for step in list(walk(session, training))[1:]:
        for name, mask in step.after.masks.items():
            count = int((step.after.weights[name][~mask] != 0).sum())
            assert not count, f"not 0 after step {step.number}: {count} weights outside the mask"
