"""Properties of infinite and of very large numbers, and of counts that 8 or 16 bits cannot hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rigl_core.methods import LotteryTicket
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import Blocks
from rigl_core.testing import method_oracle
from rigl_core.testing.checks import checks, is_fast, runs_where
from rigl_core.testing.fixed import fixed_layers, fixed_training
from rigl_core.testing.harness import Harness
from rigl_core.testing.method_memory import initial_masks, remember
from rigl_core.testing.method_trainings import MOVING
from rigl_core.testing.properties.test_methods import assert_counts, assert_masks_stay, check_first_update, check_update
from rigl_core.testing.recording import recorded, start
from rigl_core.testing.strategies import Training


def training_by(method: str, *shapes: tuple[int, ...]) -> Training:
    """A training by one of the methods, with an update at step 0 that may wait."""
    recipe = MOVING[method](0.5, UpdateSchedule(end=4, every=4))
    return fixed_training(replace(recipe, on_update="replace"), fixed_layers(*shapes))


@checks("M2", "M7", "T4")
def test_opposite_infinities_in_a_block_count_as_zero(harness: Harness, mode: str) -> None:
    """The sum of a block's scores is NaN, or subnormal: it is not among the two largest, and ties with 0 as third."""
    layers = fixed_layers((2, 16), (2, 16))
    scores = np.full((2, 16), -1, np.float32)
    scores[0, :2] = np.inf, -np.inf
    scores[:, 2:4], scores[:, 6:8] = 1, 0
    scores[1, 5] = np.inf
    scores[0, 6:8] = 1.5 * 2.0**-126, -(2.0**-126)
    shares = {"fc0*": 0.75, "fc1*": 0.625}
    recipe = LotteryTicket(scope="layer", structure=Blocks(2), layer_sparsity=shares)
    training = fixed_training(recipe, layers, scores={layer.name: scores for layer in layers})
    with np.errstate(invalid="ignore"):
        assert method_oracle.as_sets(start(harness, mode, training).masks()) == initial_masks(training)


@runs_where(lambda harness, mode, method: method == "RigL" or is_fast(harness, mode))
@checks("T5", "T2", "M9")
@pytest.mark.parametrize("method", ["RigL", "SNFS, no redistribution"])
def test_gradients_are_finite_one_by_one(harness: Harness, mode: str, method: str) -> None:
    """An update waits for opposite infinities, which add up to none, but not for huge numbers, which add up to one.

    A momentum takes infinities for 0.
    """
    waits = method == "RigL"
    dtype = "float16" if "float16" in harness.dtypes else "float32"
    training = training_by(method, (8, 4), (4, 8))
    memory, session = remember(training, dtype), start(harness, mode, training, dtype)
    huge = np.float32(2.0 ** (np.finfo(dtype).maxexp - 4))
    for number in (0, 1):
        coarse = {name: np.maximum(np.round(4 * gradient) / 4, 1) for name, gradient in training.gradients(2).items()}
        gradients = {name: gradient * huge for name, gradient in coarse.items()}
        if number == 0:
            outside = np.flatnonzero(~session.masks()["fc0.weight"])
            gradients["fc0.weight"].reshape(-1)[outside[[0, -1]]] = np.inf, -np.inf
        step = recorded(session, number, gradients, updates=number == waits)
        memory.see({name: np.where(np.isfinite(g), g, 0) for name, g in gradients.items()})
        if step.updates:
            check_update(memory, step, dict(step.before.weights))
        else:
            assert_masks_stay(step)


@runs_where(lambda harness, mode, method: is_fast(harness, mode) and "float16" in harness.dtypes)
@checks("T4", "M4", "P1")
def test_subnormal_weights_have_no_sign(harness: Harness, mode: str) -> None:
    """The weights are 0 or subnormal in float16: they have drawn their signs, and no update drops them."""
    training = training_by("Deep R", (8, 4), (4, 8))
    tiny = {name: param * np.float32(2.0**-15) for name, param in training.params.items()}
    training = replace(training, params=tiny)
    memory, session = remember(training, "float16"), start(harness, mode, training, "float16")
    assert_masks_stay(check_first_update(memory, session, training.gradients(0)))


COUNTING = ("RigL", "SRigL", "RigL, all layers")
"""Methods that count in a layer, in a group and in a pool; slow and compiled modes run the first, in one precision."""


def dtypes_of(harness: Harness, mode: str, method: str) -> list[str]:
    """The half precisions in which a method counts in this mode."""
    dtypes = [dtype for dtype in ("bfloat16", "float16") if dtype in harness.dtypes]
    return dtypes if is_fast(harness, mode) else dtypes[:1] if method == COUNTING[0] else []


@runs_where(dtypes_of)
@checks("B1", "T3", "M3", "P1")
@pytest.mark.parametrize("method", COUNTING)
def test_counts_are_whole_in_half_precision(harness: Harness, mode: str, method: str) -> None:
    """Counts of thousands of connections, and of thousands of ties, are exact.

    float16 has not all whole numbers above 2,048, bfloat16 not above 256; 8 bits have none above 255.
    """
    for dtype in dtypes_of(harness, mode, method):
        training = training_by(method, (2, 5200), (3, 400))
        tied = {name: np.where(abs(param) < 0.25, np.float32(0.5), 1) for name, param in training.params.items()}
        training = replace(training, params=tied)
        memory, session = remember(training, dtype), start(harness, mode, training, dtype)
        assert_counts(memory.plan, session.masks(), memory.plan.active)
        gradients = {name: np.round(2 * gradient) / 2 for name, gradient in training.gradients(2).items()}
        check_first_update(memory, session, gradients)
