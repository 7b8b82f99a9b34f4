"""Properties of methods in float64, float16 and bfloat16 (rules M2, M5, M9)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rigl_core.testing.checks import checks, for_all, is_fast, runs_where
from rigl_core.testing.harness import Array, Harness
from rigl_core.testing.method_memory import remember
from rigl_core.testing.method_trainings import method_trainings
from rigl_core.testing.oracle import SMALLEST_NORMAL
from rigl_core.testing.properties.test_methods import SEEN, assert_masks_stay, check_update
from rigl_core.testing.recording import recorded, start
from rigl_core.testing.strategies import SGD, Training

PRECISIONS = ("float64", "float16", "bfloat16")
FEW = {"SNFS": "float64", "MEST": "bfloat16", "RigL, blocks of 2": "float16", "DSR": "bfloat16", "SNIP": "float64"}
"""The methods and precisions that slow and compiled modes run: sums of blocks, momentum, products, pools."""


def dtypes_of(harness: Harness, mode: str, method: str) -> list[str]:
    """The precisions in which a method runs in this mode."""
    chosen = PRECISIONS if is_fast(harness, mode) else (FEW.get(method),)
    return [dtype for dtype in PRECISIONS if dtype in chosen and dtype in harness.dtypes]


@runs_where(dtypes_of)
@checks("M1", "M2", "M5", "M9", "P1", "T4")
@pytest.mark.parametrize("method", SEEN)
def test_every_method_in_other_precisions(harness: Harness, mode: str, method: str) -> None:
    """Masks are the oracle's, which computes scores in float64, or in float32 for layers of 16 bits."""
    for dtype in dtypes_of(harness, mode, method):
        _check(harness, mode, method, dtype)


def _check(harness: Harness, mode: str, method: str, dtype: str) -> None:
    def check(harness: Harness, mode: str, training: Training) -> None:
        training = replace(training, params={name: _coarse(param) for name, param in training.params.items()})
        memory, session = remember(training, dtype), start(harness, mode, training, dtype)
        for number in range(training.steps):
            gradients = {name: _coarse(gradient) for name, gradient in training.gradients(number).items()}
            updates = number in range(training.schedule.begin, training.schedule.end, training.schedule.every)
            step = recorded(session, number, gradients, updates=updates)
            memory.see(gradients)
            if updates:
                weights = {name: _normal(weight, dtype) for name, weight in step.before.weights.items()}
                check_update(memory, step, weights)
            else:
                assert_masks_stay(step)

    for_all(method_trainings([method], optimizers=(SGD,), replaces=True), eager=2, compiled=1)(check)(harness, mode)


def _normal(weight: Array, dtype: str) -> Array:
    """The weights as rule T4 reads them: what is subnormal in their own precision is 0; the oracle's is wider."""
    return np.where(np.abs(weight) < SMALLEST_NORMAL[dtype], 0, weight).astype(weight.dtype)


def _coarse(numbers: Array) -> Array:
    """Numbers that every precision holds exactly, and so do their products with powers of two."""
    return np.clip(np.round(8 * numbers) / 8, -8, 8).astype(np.float32)
