"""Growth compared within outputs: a compiled step chooses as an eager one does."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.tf import sparsify
from rigl_core import GRADIENT_BY_INPUT, GRADIENT_BY_OUTPUT, MAGNITUDE, Criterion, RigL, UpdateSchedule

SHAPE = (60, 200)


@pytest.mark.parametrize("grow", [GRADIENT_BY_OUTPUT, GRADIENT_BY_INPUT], ids=lambda grow: grow.name)
def test_compiled_steps_choose_among_the_largest_of_units_as_eager_ones(grow: Criterion) -> None:
    """Fewer grow than there are units, whose largest gradients all score about 1: the last bit decides."""
    eager = mask_after(grow)
    for compiled in ({}, {"jit_compile": True}):
        np.testing.assert_array_equal(mask_after(grow, compiled), eager)


def mask_after(grow: Criterion, compiled: dict[str, Any] | None = None) -> Any:
    rng = np.random.default_rng(0)
    recipe = RigL(0.99, schedule=UpdateSchedule(end=50, every=1), grow=grow, initial=MAGNITUDE)
    kernel = keras.Variable(rng.normal(size=SHAPE).astype(np.float32), name="kernel")
    optimizer = sparsify(keras.optimizers.SGD(0.1), recipe, axes={"kernel": ((0,), (1,))})
    optimizer.build([kernel])

    def step(gradient: tf.Tensor) -> None:
        optimizer.apply([gradient], [kernel])

    run = step if compiled is None else tf.function(step, **compiled)
    for _ in range(3):
        run(tf.constant(rng.normal(size=SHAPE).astype(np.float32)))
    (mask,) = optimizer.masks.values()
    return mask
