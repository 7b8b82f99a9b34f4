"""Layers that choose in packs, against each alone in NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from rigl_backends.tf.namespace import ROW
from rigl_backends.tf.packs import packs_of
from rigl_backends.tf.xla import updated_in_pack
from rigl_core import SET, Recipe, RigL, UpdateSchedule
from rigl_core.adapter import Connections, Counts, move_pool, numpy_namespace
from tests.tf.helpers import compiled

SCHEDULE = UpdateSchedule(end=10, every=1)
SIZES = (1, 3 * ROW - 1, 40, ROW, ROW + 1, 5, 9 * ROW - 2, 2 * ROW, 300)
KEYS = [(7 * i + 1, -i) for i in range(len(SIZES))]


def draw(rng: np.random.Generator, dtype: Any, size: int, distinct: int) -> npt.NDArray[Any]:
    """Weights, or gradients: with few distinct numbers, ties across the rows of a layer."""
    return (rng.integers(-distinct, distinct + 1, size) / distinct).astype(dtype)


def expected_mask(recipe: Recipe, connections: Connections, mask: Any, keep: int, grow: int) -> npt.NDArray[np.bool_]:
    (moved,) = move_pool(recipe.rule, [connections], [mask], Counts(keep, grow), xp=numpy_namespace)
    new: npt.NDArray[np.bool_] = moved.mask
    return new


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("recipe", [RigL(0.5, schedule=SCHEDULE), SET(0.5, schedule=SCHEDULE)], ids=["rigl", "set"])
def test_masks_are_those_of_each_layer_alone(recipe: Recipe, dtype: Any) -> None:
    """Ties, nothing to keep, nothing to grow and no information included; half of the layers have another dtype."""
    rng = np.random.default_rng(0)
    dtypes = [dtype if i % 2 else np.float32 for i in range(len(SIZES))]
    draws = recipe.rule.reads_random

    def of(weight: Any, gradient: Any, i: int, range_: Any) -> Connections:
        return Connections(weight, gradient, range_ if draws else None, KEYS[i] if draws else None)

    @lambda function: compiled(function, "xla")
    def together(weights: Any, gradients: Any, masks: Any, keep: Any, grow: Any) -> Any:
        def connections(i: int) -> Connections:
            own = of(weights[i], gradients[i], i, tf.range(SIZES[i]))
            key = own.random_key and tuple(tf.constant(part, tf.int32) for part in own.random_key)
            return Connections(own.weight, own.gradient, own.indices, key)

        new: dict[int, Any] = {}
        counts = [Counts(keep[i], grow[i]) for i in range(len(SIZES))]
        for pack in packs_of(SIZES, dtypes):
            layers = [connections(i) for i in pack.layers]
            own_masks, own_counts = ([of_all[i] for i in pack.layers] for of_all in (masks, counts))
            updated = updated_in_pack(pack, recipe.rule, layers, own_masks, own_counts)
            new.update(zip(pack.layers, (own.mask for own in updated), strict=True))
        return [new[i] for i in range(len(SIZES))]

    for distinct in (1, 3, 1000):
        arrays = [[draw(rng, own, n, distinct) for own, n in zip(dtypes, SIZES, strict=True)] for _ in range(2)]
        for i in (2, 4):
            arrays[1][i][:] = 0
        masks = [rng.random(n) < 0.3 for n in SIZES]
        active = [int(mask.sum()) for mask in masks]
        grow = [int(rng.choice([0, n, n // 3])) for n in active]
        keep = [n - own for n, own in zip(active, grow, strict=True)]
        tensors = [[tf.constant(x) for x in own] for own in (*arrays, masks)]
        new = together(*tensors, tf.constant(keep), tf.constant(grow))
        for i, mask in enumerate(new):
            own = of(arrays[0][i], arrays[1][i], i, np.arange(SIZES[i], dtype=np.int32))
            np.testing.assert_array_equal(mask.numpy(), expected_mask(recipe, own, masks[i], keep[i], grow[i]))


def test_layers_that_lie_together_take_half_of_the_largest_and_each_layer_lies_once() -> None:
    kinds = [size % 2 for size in SIZES]
    packs = packs_of(SIZES, kinds)
    assert sorted(i for pack in packs for i in pack.layers) == list(range(len(SIZES)))
    assert max(len(pack.layers) for pack in packs) > 2
    for pack in packs:
        assert pack.last.max() <= (9 if len(pack.layers) == 1 else 4)
        assert len({kinds[i] for i in pack.layers}) == 1


def test_xla_compiles_a_step_once(tmp_path: Path) -> None:
    """Also when the number of the update changes: no shape, and no slice, depends on it."""
    code = """
import keras, tensorflow as tf
from rigl_backends.tf import sparsify
from rigl_core import DSR, Cosine, RigL, UpdateSchedule
from tests.tf.helpers import make_gradients, make_model
for method in (RigL, DSR):
    recipe = method(0.7, schedule=UpdateSchedule(end=20, every=2), drop_fraction=Cosine(0.4))
    model = make_model()
    optimizer = sparsify(keras.optimizers.SGD(0.1), recipe, model=model)
    def one_step(gradients):
        optimizer.apply(gradients, model.trainable_variables)
    step = tf.function(one_step, jit_compile=True)
    for number in range(6):
        step(make_gradients(model.trainable_variables, number))
"""
    flags = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*one_step.*"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("*before_optimizations.txt"))) == 2
