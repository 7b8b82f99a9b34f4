"""Weights that were restored apart from the topology are told to whoever looks (P4)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from rigl_backends.tf import EarlyStopping, SparseOptimizer, sparsify
from rigl_core import Recipe, SparsityWarning
from rigl_core.testing.checks import checks
from tests.tf.helpers import (
    LOSS,
    assert_same,
    assert_zero_outside,
    layer_arrays,
    make_data,
    make_gradients,
    make_model,
    rigl,
    values,
)

# Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

TOLD = r"weights lie outside their masks: \d+ of 'net/fc1/kernel', \d+ of 'net/fc2/kernel'"


class Scores(keras.callbacks.Callback):  # type: ignore[misc]
    """The second epoch is the best one."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["score"] = abs(epoch - 1)


def make(recipe: Recipe | None = None, **options: Any) -> tuple[keras.Model, SparseOptimizer]:
    model = make_model()
    optimizer = sparsify(keras.optimizers.Adam(0.05), recipe or rigl(), model=model)
    model.compile(optimizer, LOSS, **options)
    return model, optimizer


def fit(model: keras.Model, epochs: int, *callbacks: keras.callbacks.Callback) -> None:
    x, y = make_data()
    model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=[Scores(), *callbacks])


def stop(kind: type[keras.callbacks.EarlyStopping]) -> keras.callbacks.EarlyStopping:
    return kind("score", mode="min", patience=2, restore_best_weights=True)


def restore_apart(model: keras.Model, optimizer: SparseOptimizer) -> npt.NDArray[np.float32]:
    """Train, then bring back the first weights."""
    first = model.get_weights()
    for step in range(6):
        optimizer.apply(make_gradients(model.trainable_variables, step), model.trainable_variables)
    model.set_weights(first)
    kernel: npt.NDArray[np.float32] = first[0]
    return kernel


@checks("P4")
@pytest.mark.parametrize("look", ["masks", "table", "save"])
def test_whoever_looks_is_told(look: str, tmp_path: Path) -> None:
    model, optimizer = make()
    kernel = restore_apart(model, optimizer)
    looks: dict[str, Callable[[], Any]] = {
        "masks": lambda: optimizer.masks,
        "table": lambda: optimizer.table,
        "save": lambda: model.save(tmp_path / "model.keras"),
    }
    with pytest.warns(SparsityWarning, match=TOLD) as told:
        looks[look]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outside = int((kernel[~optimizer.masks["net/fc1/kernel"]] != 0).sum())
    assert outside
    assert any(f"{outside} of 'net/fc1/kernel'" in str(one.message) for one in told)


@checks("P4")
@pytest.mark.parametrize(
    "options", [{"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True}], ids=["graph", "xla", "eager"]
)
def test_the_next_fit_tells_what_it_found(options: dict[str, Any]) -> None:
    """Its steps zero it; and a fit() that finds nothing says nothing."""
    model, optimizer = make(**options)
    fit(model, 9, stop(keras.callbacks.EarlyStopping))
    with pytest.warns(SparsityWarning, match=TOLD):
        fit(model, 1)
    fit(model, 1)
    assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), optimizer.masks)


@checks("P4")
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_an_update_by_xla_counts_what_it_zeroes(scope: Literal["layer", "global"]) -> None:
    recipe = rigl(every=2, end=100)
    model, optimizer = make(replace(recipe, scope=scope))
    kernel = restore_apart(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outside = int((kernel[~optimizer.masks["net/fc1/kernel"]] != 0).sum())

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def step(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, model.trainable_variables)

    for number in range(6, 9):
        step(make_gradients(model.trainable_variables, number))
    with pytest.warns(SparsityWarning, match=f"{outside} of 'net/fc1/kernel'"):
        masks = optimizer.masks
    assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), masks)


@checks("P4")
@pytest.mark.parametrize("scaled", [False, True])
def test_early_stopping_restores_the_topology_too(scaled: bool) -> None:
    """After that the training is the one that was stopped after the best epoch."""
    model, optimizer = make()
    expected, its = make()
    if scaled:
        for own, one in ((model, optimizer), (expected, its)):
            own.compile(keras.optimizers.LossScaleOptimizer(one, initial_scale=2.0**10), LOSS)
    fit(model, 9, stop(EarlyStopping))
    fit(expected, 2)
    assert optimizer.step == 16
    assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), optimizer.masks)
    assert_same(values(optimizer), values(its))
    assert_same([v.numpy() for v in model.trainable_variables], [v.numpy() for v in expected.trainable_variables])


def test_early_stopping_restores_nothing_unless_it_is_asked_to() -> None:
    model, optimizer = make()
    fit(model, 9, EarlyStopping("score", mode="min", patience=2))
    assert optimizer.step == 32


@checks("P4")
def test_an_eager_loop_is_told_at_its_next_step() -> None:
    model, optimizer = make()
    restore_apart(model, optimizer)
    with pytest.warns(SparsityWarning, match=TOLD):
        optimizer.apply(make_gradients(model.trainable_variables, 6))
    optimizer.apply(make_gradients(model.trainable_variables, 7))
    assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), optimizer.masks)


@checks("P5")
def test_a_training_with_the_inner_optimizer_is_told() -> None:
    """Its steps pass the topology by."""
    model = make_model()
    inner = keras.optimizers.Adam(0.01)
    optimizer = sparsify(inner, rigl(), model=model)
    model.compile(inner, LOSS)
    fit(model, 1)
    with pytest.warns(SparsityWarning, match=TOLD):
        optimizer.masks["net/fc1/kernel"].any()


class Own(keras.Model):  # type: ignore[misc]
    """Keras loads its layers in the order of their names, and the optimizer among them."""

    def __init__(self) -> None:
        super().__init__(name="own")
        self.a, self.z = keras.layers.Dense(10, name="a"), keras.layers.Dense(6, name="z")
        self(np.zeros((1, 12), np.float32))

    def call(self, x: Any) -> Any:
        return self.z(keras.ops.relu(self.a(x)))


def test_loading_a_model_part_by_part_tells_nothing(tmp_path: Path) -> None:
    def start() -> tuple[keras.Model, SparseOptimizer]:
        model = Own()
        optimizer = sparsify(keras.optimizers.Adam(0.05), rigl(), model=model)
        model.compile(optimizer, LOSS)
        return model, optimizer

    model, optimizer = start()
    fit(model, 2)
    model.save_weights(tmp_path / "model.weights.h5")
    resumed, again = start()
    resumed.load_weights(tmp_path / "model.weights.h5")
    for name, mask in optimizer.masks.items():
        np.testing.assert_array_equal(again.masks[name], mask)
