"""Trainings that Keras and tf.train.Checkpoint save resume bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.tf import SparseOptimizer, sparsify
from rigl_core import DNW, SET, SNFS, Constant, Criterion, DeepR, GradualPruning, LotteryTicket, RigL, UpdateSchedule
from rigl_core.arrays import topology
from tests.tf.helpers import LOSS, assert_same, made_again, make_data, make_gradients, make_model, rigl, values

# Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

RECIPES = {
    "RigL": rigl(),
    "SET": SET(0.7, schedule=UpdateSchedule(end=40, every=3), drop_fraction=Constant(0.3), seed=1),
    "SNFS": SNFS(0.7, schedule=UpdateSchedule(end=40, every=3)),
    "DNW": DNW(0.7, schedule=UpdateSchedule(end=40, every=3)),
    "Deep R": DeepR(0.7, schedule=UpdateSchedule(end=40, every=3), noise=0.1),
    "gradual pruning": GradualPruning(0.7, schedule=UpdateSchedule(end=10, every=2)),
    "lottery ticket": LotteryTicket(0.7),
}


def start(recipe: Any, *, at_once: bool = True) -> tuple[keras.Model, SparseOptimizer]:
    model = make_model()
    inner = keras.optimizers.Adam(0.01, use_ema=not recipe.shadow)
    scores = None
    if recipe.initial.reads_scores:
        scores = {variable.path: np.square(variable) for variable in model.trainable_variables}
    optimizer = sparsify(inner, recipe, model=model if at_once else None, scores=scores)
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
OTHERS = [name for name in RECIPES if name != "RigL"]


@pytest.mark.parametrize(
    ("way", "recipe", "stop"),
    [
        *((way, "RigL", stop) for way in WAYS for stop in (0, 5)),
        *((way, recipe, 4) for way in (through_file, through_checkpoint) for recipe in OTHERS),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
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
    assert list(resumed.optimizer.masks) == [v.path for v in resumed.trainable_variables if v.name == "kernel"]


def test_backup_and_restore_after_a_crash(tmp_path: Path) -> None:
    """A training that is killed in an epoch, and restarted by the same script, gives the bits of one without a stop."""
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
    assert list(made_again(optimizer).masks) == ["net/fc1/kernel", "net/fc1/bias"]


def large_and_steep(connections: Any, xp: Any) -> Any:
    """The magnitude of the weight times that of the gradient."""
    return topology.magnitude(connections.weight, xp=xp) * topology.magnitude(connections.gradient, xp=xp)


STEEP = Criterion("large_and_steep", large_and_steep, reads_gradient=True)


@dataclass(frozen=True)
class LateRamp:
    """A ramp that keeps its initial sparsity until half of the way."""

    kind: ClassVar[str] = "late"
    initial: float = 0.1

    def sparsity(self, progress: float, final: float) -> float:
        return self.initial if progress < 0.5 else final


OWN = RigL(0.7, schedule=UpdateSchedule(end=20, every=4), drop=STEEP, ramp=LateRamp())


def test_parts_of_ones_own_are_custom_objects(tmp_path: Path) -> None:
    """A criterion goes by its name, another part by its kind. They are passed to load_model, or put in a scope."""
    model, optimizer = start(OWN)
    train(model, 0, 3)
    model.save(tmp_path / "model.keras")
    parts = {"large_and_steep": STEEP, "late": LateRamp}
    resumed = keras.models.load_model(tmp_path / "model.keras", custom_objects=parts)
    with keras.saving.custom_object_scope(parts):
        scoped = keras.models.load_model(tmp_path / "model.keras")
    assert resumed.optimizer.recipe == scoped.optimizer.recipe == OWN
    for one in (model, resumed):
        train(one, 3, 12)
    assert_same(values(resumed, resumed.optimizer), values(model, optimizer))


def test_parts_that_nobody_knows_are_named(tmp_path: Path) -> None:
    _, optimizer = start(OWN)
    config = optimizer.get_config()
    for given, unknown in (({}, "late"), ({"late": LateRamp, "large_and_steep": print}, "large_and_steep")):
        with pytest.raises(ValueError, match=f"names the unknown '{unknown}': known are"):
            SparseOptimizer.from_config(config, given)
    assert SparseOptimizer.from_config(config, {"late": LateRamp, "large_and_steep": STEEP}).recipe == OWN


def test_a_configuration_holds_no_scores() -> None:
    """An optimizer made from a configuration waits for a saved state, and changes nothing before."""
    model, optimizer = start(RECIPES["lottery ticket"])
    again = SparseOptimizer.from_config(optimizer.get_config())
    other = make_model()
    before = values(other)
    again.build(other.trainable_variables)
    assert_same(values(other), before)
    with pytest.raises(ValueError, match="optimizer was made from its configuration, which holds no scores"):
        again.apply(make_gradients(other.trainable_variables, 0))
    store: dict[str, Any] = {}
    optimizer.save_own_variables(store)
    again.load_own_variables(store)
    other.set_weights(model.get_weights())
    again.apply(make_gradients(other.trainable_variables, 0))
    for name, mask in optimizer.masks.items():
        np.testing.assert_array_equal(again.masks[name], mask)


def test_counts_of_layers_that_choose_together_are_checked_together() -> None:
    """In a saved state, connections may have moved between layers, but none may be lost."""
    recipe = SNFS(0.7, schedule=UpdateSchedule(end=40, every=1))
    model, optimizer = start(recipe)
    train(model, 0, 4)
    store: dict[str, Any] = {}
    optimizer.save_own_variables(store)
    start(recipe)[1].load_own_variables(store)
    assert [int(mask.sum()) for mask in optimizer.masks.values()] != list(optimizer.plan.active)
    full = next(i for i, values in store.items() if values.dtype == np.bool_ and values.ndim)
    store[full] = np.ones_like(store[full])
    _, fresh = start(recipe)
    before = values(fresh)
    with pytest.raises(ValueError, match="active weights in layer 'net/fc1/kernel', 'net/fc2/kernel'; the plan has"):
        fresh.load_own_variables(store)
    assert_same(values(fresh), before)


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
    with pytest.raises(
        ValueError, match=r"state was saved under another recipe: drop_fraction was .*; sparsity was 0\.7"
    ):
        other.load_weights(tmp_path / "model.weights.h5")
    assert_same(values(optimizer), before)
    unbuilt, _ = start(rigl(), at_once=False)
    with pytest.raises(ValueError, match=r"optimizer is not built: call build\(model.trainable_variables\)"):
        unbuilt.load_weights(tmp_path / "model.weights.h5")
    plain = make_model()
    plain.compile(sparsify(keras.optimizers.SGD(), rigl(), model=plain), LOSS)
    with pytest.raises(ValueError, match=r"state holds \d+ variables, and the optimizer has \d+"):
        plain.load_weights(tmp_path / "model.weights.h5")
