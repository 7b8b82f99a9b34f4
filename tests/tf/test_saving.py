"""Saved by Keras and by tf.train.Checkpoint, and resumed bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.tf import SparseOptimizer, sparsify
from rigl_core import SET, Constant, RigL, UpdateSchedule
from tests.tf.helpers import LOSS, assert_same, make_data, make_gradients, make_model, rigl, values

# Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

RECIPES = {
    "RigL": rigl(),
    "SET": SET(0.7, schedule=UpdateSchedule(end=40, every=3), drop_fraction=Constant(0.3), seed=1),
}


def start(recipe: Any, *, at_once: bool = True) -> tuple[keras.Model, SparseOptimizer]:
    model = make_model()
    optimizer = sparsify(keras.optimizers.Adam(0.01, use_ema=True), recipe, model=model if at_once else None)
    model.compile(optimizer, LOSS)
    return model, optimizer


def train(model: keras.Model, first: int, last: int) -> None:
    for number in range(first, last):
        gradients = make_gradients(model.trainable_variables, number)
        if number == 4:  # an update of RigL is deferred over the time of saving
            gradients[0] += np.where(model.optimizer.step == 4, np.float32(np.inf), np.float32(0))
        model.optimizer.apply(gradients, model.trainable_variables)


def through_file(model: keras.Model, path: Path, recipe: Any) -> keras.Model:
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


def through_weights(model: keras.Model, path: Path, recipe: Any) -> keras.Model:
    model.save_weights(path / "model.weights.h5")
    fresh, _ = start(recipe)
    fresh.load_weights(path / "model.weights.h5")
    return fresh


def through_checkpoint(model: keras.Model, path: Path, recipe: Any) -> keras.Model:
    saved = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(path / "checkpoint")
    fresh, optimizer = start(recipe)
    tf.train.Checkpoint(model=fresh, optimizer=optimizer).restore(saved).assert_consumed()
    return fresh


def through_checkpoint_before_building(model: keras.Model, path: Path, recipe: Any) -> keras.Model:
    saved = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(path / "checkpoint")
    fresh, optimizer = start(recipe, at_once=False)
    status = tf.train.Checkpoint(model=fresh, optimizer=optimizer).restore(saved)
    optimizer.build(fresh.trainable_variables)
    status.assert_consumed()
    return fresh


WAYS = [through_file, through_weights, through_checkpoint, through_checkpoint_before_building]


@pytest.mark.parametrize(("recipe", "stop"), [("RigL", 0), ("RigL", 5), ("SET", 4)])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_resume_bit_for_bit(
    way: Callable[[keras.Model, Path, Any], keras.Model], recipe: str, stop: int, tmp_path: Path
) -> None:
    model, optimizer = start(RECIPES[recipe])
    train(model, 0, stop)
    resumed = way(model, tmp_path, RECIPES[recipe])
    assert resumed.optimizer is not optimizer
    assert resumed.optimizer.step == stop
    assert_same(values(resumed, resumed.optimizer), values(model, optimizer))
    for one in (model, resumed):
        train(one, stop, 12)
    assert_same(values(resumed, resumed.optimizer), values(model, optimizer))
    assert list(resumed.optimizer.masks) == list(optimizer.masks)


def test_backup_and_restore_after_a_crash(tmp_path: Path) -> None:
    """Killed in the middle of an epoch, restarted with the same script: the uninterrupted training's bits."""
    x, y = make_data()

    class Crash(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.model.optimizer.step == 13:
                raise KeyboardInterrupt

    def fit(*callbacks: keras.callbacks.Callback) -> keras.Model:
        model, _ = start(rigl(), at_once=False)
        model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=list(callbacks))
        return model

    def backup() -> keras.callbacks.Callback:
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    expected = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(backup(), Crash())
    resumed = fit(backup())
    assert resumed.optimizer.step == 24
    assert_same(values(resumed, resumed.optimizer), values(expected, expected.optimizer))


def test_the_configuration_makes_the_same_optimizer() -> None:
    optimizer = sparsify(keras.optimizers.Adam(0.5), rigl(), include=["*bias"], exclude=["net/fc2/*"])
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, SparseOptimizer)
    assert again.get_config() == optimizer.get_config()
    for one in (optimizer, again):
        one.build(make_model().trainable_variables)
    assert again.plan == optimizer.plan
    assert list(again.masks) == ["net/fc1/kernel", "net/fc1/bias"]


def test_inside_a_loss_scale_optimizer(tmp_path: Path) -> None:
    model, optimizer = start(rigl())
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer), LOSS)
    model.fit(*make_data(), batch_size=16, verbose=0)
    resumed = through_file(model, tmp_path, None)
    assert_same(values(resumed, resumed.optimizer), values(model, model.optimizer))
    assert resumed.optimizer.inner_optimizer.step == 8


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    model, _ = start(rigl())
    model.save_weights(tmp_path / "model.weights.h5")
    other, optimizer = start(RigL(0.5, schedule=UpdateSchedule(end=40, every=4)))
    before = values(optimizer)
    with pytest.raises(ValueError, match=r"state has \d+ active weights in layer 'net/fc1/kernel'; the plan has \d+"):
        other.load_weights(tmp_path / "model.weights.h5")
    assert_same(values(optimizer), before)
    unbuilt, _ = start(rigl(), at_once=False)
    with pytest.raises(ValueError, match=r"optimizer is not built: call build\(model.trainable_variables\)"):
        unbuilt.load_weights(tmp_path / "model.weights.h5")
    plain = make_model()
    plain.compile(sparsify(keras.optimizers.SGD(), rigl(), model=plain), LOSS)
    with pytest.raises(ValueError, match=r"state holds \d+ variables, and the optimizer has \d+"):
        plain.load_weights(tmp_path / "model.weights.h5")
