"""The recipe is part of a saved state (P2): another one is refused, unless it was changed on purpose."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.tf import SparseOptimizer, sparsify
from rigl_core import SNFS, Constant, Recipe, RigL, SparsityWarning, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.tf.helpers import LOSS, assert_same, assert_zero_outside, layer_arrays, make_gradients, make_model, values

# Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SCHEDULE = UpdateSchedule(end=40, every=3)
RECIPE = RigL(0.7, schedule=SCHEDULE, seed=1)
LONGER = replace(RECIPE, schedule=UpdateSchedule(end=90, every=3))

Restore = Callable[[keras.Model, SparseOptimizer], Any]


def make(recipe: Recipe, **options: Any) -> tuple[keras.Model, SparseOptimizer]:
    model = make_model()
    optimizer = sparsify(keras.optimizers.Adam(0.01), recipe, model=model, **options)
    model.compile(optimizer, LOSS)
    return model, optimizer


def train(model: keras.Model, optimizer: SparseOptimizer, first: int, last: int) -> None:
    for number in range(first, last):
        optimizer.apply(make_gradients(model.trainable_variables, number), model.trainable_variables)


def through_weights(model: keras.Model, path: Path) -> Restore:
    model.save_weights(path / "model.weights.h5")
    return lambda fresh, optimizer: fresh.load_weights(path / "model.weights.h5")


def through_store(model: keras.Model, path: Path) -> Restore:
    store: dict[str, Any] = {}
    model.optimizer.save_own_variables(store)
    weights = model.get_weights()

    def restore(fresh: keras.Model, optimizer: SparseOptimizer) -> None:
        optimizer.load_own_variables(store)
        fresh.set_weights(weights)

    return restore


def through_checkpoint(model: keras.Model, path: Path) -> Restore:
    saved = tf.train.Checkpoint(optimizer=model.optimizer, model=model).save(path / "checkpoint")
    return lambda fresh, optimizer: tf.train.Checkpoint(optimizer=optimizer, model=fresh).restore(saved)


WAYS = [through_weights, through_store, through_checkpoint]


@checks("P2", "P3")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_state_of_another_recipe_is_refused(way: Callable[..., Restore], tmp_path: Path) -> None:
    """All differences are listed, and the optimizer stays as it was."""
    model, optimizer = make(RECIPE)
    train(model, optimizer, 0, 5)
    restore = way(model, tmp_path)
    other, fresh = make(replace(LONGER, seed=2))
    before = values(fresh)
    refused = r"saved under another recipe: schedule was .*; seed was 1 and is 2.*changed=\['schedule', 'seed'\]"
    with pytest.raises(ValueError, match=refused):
        restore(other, fresh)
    assert_same(values(fresh), before)
    with pytest.raises(ValueError, match="saved under another recipe: seed was"):
        restore(*make(replace(LONGER, seed=2), changed=["schedule"]))
    with pytest.raises(ValueError, match=r"saved under another recipe: .*method was 'RigL' and is 'SNFS'"):
        restore(*make(SNFS(0.7, schedule=SCHEDULE, seed=1)))


@checks("P2")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_longer_schedule_goes_on_bit_for_bit(way: Callable[..., Restore], tmp_path: Path) -> None:
    """With a constant drop fraction, a longer schedule is the same until the shorter one ends."""
    recipe = replace(RECIPE, drop_fraction=Constant(0.3))
    model, optimizer = make(recipe)
    train(model, optimizer, 0, 5)
    resumed, fresh = make(replace(recipe, schedule=LONGER.schedule), changed=["schedule"])
    way(model, tmp_path)(resumed, fresh)
    for own, its in ((model, optimizer), (resumed, fresh)):
        train(own, its, 5, 12)
    assert fresh.step == 12
    assert_same(values(resumed, fresh), values(model, optimizer))


@checks("P2", "B1")
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_masks_are_brought_to_another_sparsity(way: Callable[..., Restore], sparsity: float, tmp_path: Path) -> None:
    """The largest weights stay; a training that is traced after loading has the new counts from its first step."""
    model, optimizer = make(RECIPE)
    train(model, optimizer, 0, 5)
    old, weights = optimizer.masks, model.get_layer("fc1").kernel.numpy()
    resumed, fresh = make(replace(RECIPE, sparsity=sparsity), changed=["sparsity"])
    way(model, tmp_path)(resumed, fresh)
    step = tf.function(lambda grads: fresh.apply(grads, resumed.trainable_variables))
    step(make_gradients(resumed.trainable_variables, 5))
    masks = fresh.masks
    assert [int(mask.sum()) for mask in masks.values()] == list(fresh.plan.active)
    name = "net/fc1/kernel"
    kept = old[name] & masks[name]
    assert kept.sum() == min(old[name].sum(), masks[name].sum())
    assert abs(weights[kept]).min() >= abs(weights[old[name] & ~kept]).max(initial=0)
    assert_zero_outside(layer_arrays(fresh, resumed.trainable_variables), masks)


def test_an_optimizer_that_is_not_built_finds_out_when_it_is(tmp_path: Path) -> None:
    model, _ = make(RECIPE)
    saved = tf.train.Checkpoint(optimizer=model.optimizer).save(tmp_path / "checkpoint")
    fresh = make_model()
    optimizer = sparsify(keras.optimizers.Adam(0.01), replace(RECIPE, seed=2))
    before = values(fresh)
    tf.train.Checkpoint(optimizer=optimizer).restore(saved)
    with pytest.raises(ValueError, match="saved under another recipe: seed was 1 and is 2"):
        optimizer.build(fresh.trainable_variables)
    assert_same(values(fresh), before)
    assert not optimizer.built


def test_inside_a_loss_scale_optimizer(tmp_path: Path) -> None:
    model, optimizer = make(RECIPE)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer), LOSS)
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "model.weights.h5")
    other, fresh = make(LONGER)
    other.compile(keras.optimizers.LossScaleOptimizer(fresh), LOSS)
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(ValueError, match="saved under another recipe: schedule was"):
        other.load_weights(tmp_path / "model.weights.h5")


def test_other_states_and_other_fields() -> None:
    _, optimizer = make(RECIPE)
    store: dict[str, Any] = {}
    optimizer.inner_optimizer.save_own_variables(store)
    with pytest.raises(ValueError, match="state holds no recipe: it was saved by an optimizer that was not sparsified"):
        optimizer.load_own_variables(store)
    optimizer.save_own_variables(store)
    wrong = {**store, "3": np.zeros((2, 2), np.float32)}
    with pytest.raises(ValueError, match=r"state has the shape \(2, 2\) for"):
        optimizer.load_own_variables(wrong)
    with pytest.raises(ValueError, match="changed names 'structure'"):
        sparsify(keras.optimizers.Adam(), RECIPE, changed=["structure"])
    with pytest.raises(TypeError, match="changed is 'schedule'"):
        sparsify(keras.optimizers.Adam(), RECIPE, changed="schedule")


def test_a_checkpoint_of_weights_that_do_not_fit_is_told(tmp_path: Path) -> None:
    model, optimizer = make(RECIPE)
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    with pytest.warns(SparsityWarning, match="weights lie outside their masks"):
        tf.train.Checkpoint(optimizer=optimizer).save(tmp_path / "checkpoint")


def test_a_saved_model_can_hold_the_optimizer(tmp_path: Path) -> None:
    model, optimizer = make(RECIPE)
    train(model, optimizer, 0, 2)
    tf.saved_model.save(model, tmp_path / "model")
    model.export(tmp_path / "exported", verbose=False)
    x = tf.ones((2, 12))
    for name in ("model", "exported"):
        np.testing.assert_allclose(
            tf.saved_model.load(tmp_path / name).signatures["serving_default"](x)["output_0"], model(x), 1e-5
        )


def test_copies_of_a_model_are_sparse_on_their_own() -> None:
    """Keras copies a model by saving it."""
    model, optimizer = make(RECIPE)
    train(model, optimizer, 0, 2)
    twin = copy.deepcopy(model)
    assert_same(values(twin, twin.optimizer), values(model, optimizer))
    train(twin, twin.optimizer, 2, 5)
    assert optimizer.step == 2
    train(model, optimizer, 2, 5)
    assert_same(values(twin, twin.optimizer), values(model, optimizer))
