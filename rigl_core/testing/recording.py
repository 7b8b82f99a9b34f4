"""Trainings recorded step by step, so that properties can check every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rigl_core.plan import make_plan
from rigl_core.testing import oracle
from rigl_core.testing.harness import Array, Harness, Mask, Session
from rigl_core.testing.strategies import Training


@dataclass(frozen=True)
class Recorded:
    """Copies of everything that the rules are about: weights, masks and optimizer state by parameter name."""

    weights: Mapping[str, Array]
    masks: Mapping[str, Mask]
    state: Mapping[str, list[Array]]

    @classmethod
    def of(cls, session: Session) -> Recorded:
        """A record of the session now."""
        return cls(session.weights(), session.masks(), session.optimizer_state())


@dataclass(frozen=True)
class Step:
    """One optimizer step: its number, its dense gradients, and the records before and after it."""

    number: int
    gradients: Mapping[str, Array]
    before: Recorded
    after: Recorded
    updates: bool
    """Whether an update fires, by rule S1."""


def start(
    harness: Harness,
    mode: str,
    training: Training,
    dtype: str = "float32",
    *,
    dense_steps: Sequence[Mapping[str, Array]] = (),
) -> Session:
    """Start the training's session; it has made no step, or ``dense_steps`` with these gradients."""
    return harness.start(
        training.params,
        training.layers,
        training.recipe,
        training.optimizer,
        dtype=dtype,
        mode=mode,
        scores=training.scores,
        dense_steps=dense_steps,
    )


def steps(session: Session, training: Training) -> Iterator[Step]:
    """Run the training, and yield each of its steps."""
    schedule = training.recipe.schedule
    before = Recorded.of(session)
    for number in range(training.steps):
        gradients, missing = training.gradients(number), {}
        name, quiet = training.quiet[0], number in training.quiet[1]
        if quiet and training.silence == "missing":
            missing = {name: None}
        elif quiet and training.silence == "inactive":
            gradients[name] = np.where(before.masks[name], gradients[name], before.weights[name].dtype.type(1))
        session.step({**gradients, **missing})
        after = Recorded.of(session)
        updates = schedule is not None and oracle.fires(number, schedule.begin, schedule.end, schedule.every)
        yield Step(number, gradients, before, after, updates)
        before = after


def recorded(session: Session, number: int, gradients: Mapping[str, Array], *, updates: bool) -> Step:
    """Make a step with these gradients, and record what was before and after it."""
    before = Recorded.of(session)
    session.step(gradients)
    return Step(number, gradients, before, Recorded.of(session), updates)


def drop_count(training: Training, step: int, layer: str) -> int:
    """The drop count of a layer at a step with an update, by the oracle; the drop fraction is constant or a cosine."""
    schedule, plan = training.schedule, make_plan(training.recipe, training.layers)
    active = plan.active[[one.name for one in plan.layers].index(layer)]
    decay = training.recipe.drop_fraction
    alpha: float = decay.alpha  # type: ignore[attr-defined]
    fraction = alpha if decay.kind == "constant" else oracle.cosine(alpha, step, schedule.begin, schedule.end)
    return oracle.drop_count(fraction, active)


def assert_same_bits(actual: Array, expected: Array, what: str) -> None:
    """Assert that two arrays have the same bits: -0 differs from 0, and NaN equals itself."""
    __tracebackhide__ = True
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    unsigned = np.dtype(f"u{actual.dtype.itemsize}")
    differ = np.ascontiguousarray(actual).view(unsigned) != np.ascontiguousarray(expected).view(unsigned)
    assert not differ.any(), f"{what}: {actual[differ]} should be {expected[differ]}"


def assert_same(actual: Recorded, expected: Recorded) -> None:
    """Assert that two records have the same bits."""
    for name, weight in expected.weights.items():
        assert_same_bits(actual.weights[name], weight, f"weight {name}")
        counts = len(actual.state[name]), len(expected.state[name])
        assert counts[0] == counts[1], f"optimizer state of {name}: {counts[0]} arrays, expected {counts[1]}"
        for mine, other in zip(actual.state[name], expected.state[name], strict=True):
            assert_same_bits(mine, other, f"optimizer state of {name}")
    assert actual.masks.keys() == expected.masks.keys(), f"masks of {[*actual.masks]}, expected {[*expected.masks]}"
    for name, mask in expected.masks.items():
        assert_same_bits(actual.masks[name], mask, f"mask {name}")
