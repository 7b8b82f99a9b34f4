"""Properties of large layers, which libraries and adapters read in parts: the last part counts like the first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rigl_core.methods import SET, RigL
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.recipe import Recipe
from rigl_core.testing import oracle
from rigl_core.testing.checks import checks, is_fast, runs_where
from rigl_core.testing.fixed import fixed_layers, fixed_training
from rigl_core.testing.harness import Array, Harness, Session
from rigl_core.testing.method_memory import remember
from rigl_core.testing.properties.test_methods import check_first_update
from rigl_core.testing.properties.test_topology import by_a_stable_sort
from rigl_core.testing.recording import Step, drop_count, recorded, start
from rigl_core.testing.strategies import Training

PART = 2**17
"""Our own NumPy workers read as many numbers at a time."""
SHAPE = (400, 330)
"""The shape of a layer of 132,000 weights."""
SCHEDULE = UpdateSchedule(end=8, every=2)


def has_turn(harness: Harness, mode: str, method: str) -> bool:
    """Whether this mode runs the large cases: the eager one if it is fast, else all others."""
    return is_fast(harness, mode) or not (is_fast(harness, "eager") or mode in harness.slow_modes)


def training_of(recipe: Recipe, *more: tuple[int, ...]) -> Training:
    """A training of the large layer, in which all weights tie, and of more layers."""
    training = fixed_training(recipe, fixed_layers(SHAPE, *more))
    large = training.params["fc0.weight"]
    large[...] = np.where(large < 0, -1, 1)
    return training


def only_from(position: int) -> Array:
    """A gradient that is 0 before a flat index, and 1 from there on."""
    return (np.arange(SHAPE[0] * SHAPE[1]) >= position).astype(np.float32).reshape(SHAPE)


@runs_where(has_turn)
@checks("T1", "T2", "T3", "T5", "T6", "Z1", "P1")
def test_every_part_of_a_large_layer_counts(harness: Harness, mode: str) -> None:
    """Ties end in the second part; a NaN, and the only information, are in the last one."""
    few = Constant(0.002)  # so that the last of those that stay is in the second part
    training = training_of(RigL(0.5, schedule=SCHEDULE, drop_fraction=few))
    session = start(harness, mode, training)
    for step in _large_steps(session, training):
        before, after = step.before, step.after
        expected = before.masks["fc0.weight"].reshape(-1).tolist()
        if step.updates:
            k = drop_count(training, step.number - (step.number == 1), "fc0.weight")  # the first one has waited
            weight, gradient = before.weights["fc0.weight"], step.gradients["fc0.weight"]
            expected = oracle.rigl_mask(
                weight.reshape(-1).tolist(), gradient.reshape(-1).tolist(), expected, k, "float32"
            )
        mask = after.masks["fc0.weight"]
        assert (mask.reshape(-1) == expected).all(), f"step {step.number}"
        assert not after.weights["fc0.weight"][~mask].any(), f"step {step.number}"


def _large_steps(session: Session, training: Training) -> Iterator[Step]:
    bias = training.gradients(0)["fc0.bias"]
    outside = np.flatnonzero(~session.masks()["fc0.weight"])
    waits = only_from(0)
    waits.reshape(-1)[outside[-1]] = np.nan
    for number, gradient in enumerate((waits, only_from(131_000), only_from(SHAPE[0] * SHAPE[1] - 99))):
        yield recorded(session, number, {"fc0.weight": gradient, "fc0.bias": bias}, updates=number > 0)


@runs_where(has_turn)
@checks("N1", "N2", "T3", "P1")
def test_random_numbers_of_a_large_layer(harness: Harness, mode: str) -> None:
    """The initial topology, and what grows at random, are the oracle's to the last index."""
    training = training_of(SET(0.5, schedule=SCHEDULE, on_update="replace"))
    session, size = start(harness, mode, training), SHAPE[0] * SHAPE[1]
    step = recorded(session, 0, training.gradients(0), updates=True)
    before, weight = step.before.masks["fc0.weight"].reshape(-1), step.before.weights["fc0.weight"].reshape(-1)
    assert (before == oracle.initial_mask(training.recipe.seed, "fc0.weight", size, size // 2)).all()
    k = drop_count(training, 0, "fc0.weight")
    expected = oracle.set_mask(weight.tolist(), training.recipe.seed, "fc0.weight", 0, before.tolist(), k, "float32")
    assert (step.after.masks["fc0.weight"].reshape(-1) == expected).all()


@runs_where(lambda harness, mode, method: is_fast(harness, mode))
@checks("M3", "B1", "P1")
def test_a_large_pool_in_half_precision(harness: Harness, mode: str) -> None:
    """A pool has more active connections, all tied, than the largest float16 and 16 bits can count."""
    dtype = "float16" if "float16" in harness.dtypes else "float32"
    training = training_of(RigL(0.4, schedule=SCHEDULE, scope="global"), (3, 400))
    memory, session = remember(training, dtype), start(harness, mode, training, dtype)
    gradients = {**training.gradients(0), "fc0.weight": only_from(100_000)}
    gradients["fc1.weight"] = np.round(gradients["fc1.weight"])
    check_first_update(memory, session, gradients)


@runs_where(has_turn)
@checks("T1", "T2", "T3", "P1")
def test_an_update_of_a_million_weights(harness: Harness, mode: str) -> None:
    """Our own choice holds the marks of 2**20 connections at a time."""
    size = 2**20 + PART + 5
    rng = np.random.default_rng(0)
    mask = rng.random(size) < 0.5
    weight, gradient = (rng.integers(-500, 500, size).astype(np.float32) for _ in range(2))
    keep, grow = int(mask.sum()) - 200_000, 200_000
    new = harness.updated_mask(weight, gradient, mask, keep, grow, dtype="float32", mode=mode)
    np.testing.assert_array_equal(new, by_a_stable_sort(weight, gradient, mask, grow))
