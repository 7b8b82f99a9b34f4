"""The steps of a training, compared with the NumPy adapter's, eager and compiled; an update changes nothing else."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import rigl_backends.numpy
from rigl_backends.tf import sparsify
from rigl_core import GRADIENT, RANDOM, SET, Constant, Layer, Recipe, RigL, Static, UpdateSchedule
from tests.tf.helpers import (
    MODES,
    assert_same,
    assert_updated,
    assert_zero_outside,
    compiled,
    layer_arrays,
    make_gradients,
    make_model,
    rigl,
    traces,
    values,
)

SHAPES = {"fc1": (12, 10), "bias": (10,), "fc2": (10, 6)}
LAYERS = [Layer("fc1", SHAPES["fc1"]), Layer("fc2", SHAPES["fc2"])]
OFTEN = UpdateSchedule(end=66, every=3, begin=1)
METHODS = {
    "RigL": RigL(0.7, schedule=OFTEN, drop_fraction=Constant(0.4)),
    "SET": SET(0.7, schedule=OFTEN, drop_fraction=Constant(0.4)),
    "after, by gradients": Recipe(0.7, schedule=OFTEN, drop_fraction=Constant(0.4), on_update="after"),
    "instead, at random": Recipe(0.7, schedule=OFTEN, drop_fraction=Constant(0.4), drop=GRADIENT, grow=RANDOM),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("method", "dtype"), [*((method, "float32") for method in METHODS), ("RigL", "float64")])
def test_masks_are_the_numpy_adapters_after_every_step(method: str, dtype: str, mode: str) -> None:
    """22 updates with the same gradients; some gradients are not finite, and two updates are deferred."""
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    variables = [keras.Variable(array, name=name, dtype=dtype) for name, array in params.items()]
    reference = rigl_backends.numpy.SGD(params, 0.01, 0.9)
    expected = rigl_backends.numpy.sparsify(params, reference, METHODS[method], layers=LAYERS)
    optimizer = sparsify(keras.optimizers.SGD(0.01, 0.9), METHODS[method], layers=LAYERS)
    optimizer.build(variables)
    apply = compiled(lambda grads: optimizer.apply(grads, variables), mode)
    moves = 0
    for step in range(70):
        gradients = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
        if step in (4, 5, 7, 9):
            gradients["fc2"][~expected.masks["fc2"]] = (np.nan, np.inf)[step % 2]
        if step == 61:  # an update is due, and a dense parameter's gradient defers it too
            gradients["bias"][0] = np.nan
        before = optimizer.masks
        reference.step(gradients)
        apply([tf.constant(gradient) for gradient in gradients.values()])
        assert optimizer.step == expected.step == step + 1
        for name, mask in expected.masks.items():
            np.testing.assert_array_equal(optimizer.masks[name], mask)
        moves += any((before[name] != mask).any() for name, mask in optimizer.masks.items())
        for variable, param in zip(variables, params.values(), strict=True):
            np.testing.assert_allclose(variable.numpy(), param, rtol=1e-4, atol=1e-5)
    assert moves >= 20
    assert traces(apply) <= 1


@pytest.mark.parametrize("mode", MODES)
def test_an_update_touches_nothing_but_the_topology(mode: str) -> None:
    model = make_model()
    optimizer = sparsify(keras.optimizers.AdamW(0.01, use_ema=True), rigl(end=20, every=5, begin=2), model=model)
    variables = model.trainable_variables
    apply = compiled(lambda grads: optimizer.apply(grads, variables), mode)
    for step in range(20):
        before, old, inner = layer_arrays(optimizer, variables), optimizer.masks, int(optimizer.iterations)
        apply(make_gradients(variables, step))
        after, new = layer_arrays(optimizer, variables), optimizer.masks
        assert_zero_outside(after, new)
        if step % 5 == 2:
            assert_updated(before, after, old, new)
            assert int(optimizer.iterations) == inner
        else:
            assert int(optimizer.iterations) == inner + 1
            assert all((old[name] == new[name]).all() for name in old)
    assert optimizer.step == 20


def test_updates_after_the_gradient_step() -> None:
    """SET: first the dense optimizer's step on masked gradients, then the update."""
    model = make_model()
    recipe = SET(0.7, schedule=UpdateSchedule(end=9, every=3))
    optimizer = sparsify(keras.optimizers.Adam(0.01), recipe, model=model)
    for step in range(9):
        weights, old = [v.numpy() for v in model.trainable_variables], optimizer.masks
        optimizer.apply(make_gradients(model.trainable_variables, step), model.trainable_variables)
        assert int(optimizer.iterations) == step + 1
        moved = any((old[name] != mask).any() for name, mask in optimizer.masks.items())
        assert moved == (step % 3 == 0)
        biases = zip(weights, model.trainable_variables, strict=True)
        assert all((was != now.numpy()).any() for was, now in biases if now.name == "bias")
        assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), optimizer.masks)


@pytest.mark.parametrize("mode", MODES)
def test_a_static_topology_never_moves(mode: str) -> None:
    model = make_model()
    optimizer = sparsify(keras.optimizers.SGD(0.1), Static(0.5), model=model)
    initial = optimizer.masks
    apply = compiled(lambda grads: optimizer.apply(grads, model.trainable_variables), mode)
    for step in range(3):
        apply(make_gradients(model.trainable_variables, step))
    assert optimizer.step == int(optimizer.iterations) == 3
    for name, mask in optimizer.masks.items():
        np.testing.assert_array_equal(mask, initial[name])
    assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), initial)


@pytest.mark.parametrize("mode", MODES)
def test_an_update_waits_for_finite_gradients_and_lapses_at_the_end(mode: str) -> None:
    model = make_model()
    optimizer = sparsify(keras.optimizers.SGD(0.1), rigl(end=8, every=4), model=model)
    variables = model.trainable_variables
    apply = compiled(lambda grads: optimizer.apply(grads, variables), mode)
    moved = []
    for step in range(12):
        gradients = make_gradients(variables, step)
        if step in (0, 1, 4, 5, 6, 7):
            outside = tf.constant(~optimizer.masks["net/fc1/kernel"])
            gradients[0] = tf.where(outside, tf.constant(np.nan, tf.float32), gradients[0])
        old = optimizer.masks
        apply(gradients)
        if any((old[name] != mask).any() for name, mask in optimizer.masks.items()):
            moved.append(step)
        assert np.isfinite(variables[0].numpy()).all()
    assert moved == [2]
    assert int(optimizer.iterations) == 11


def test_a_layer_that_is_not_used_keeps_its_topology() -> None:
    model = make_model()
    optimizer = sparsify(keras.optimizers.SGD(0.1), rigl(end=20, every=1), model=model)
    variables = model.trainable_variables
    kept = optimizer.masks["net/fc1/kernel"]
    for step in range(3):
        old = optimizer.masks["net/fc2/kernel"]
        optimizer.apply([None, *make_gradients(variables, step)[1:]], variables)
        np.testing.assert_array_equal(optimizer.masks["net/fc1/kernel"], kept)
        assert (optimizer.masks["net/fc2/kernel"] != old).any()


def test_gradients_may_be_given_for_some_variables_only() -> None:
    model = make_model()
    optimizer = sparsify(keras.optimizers.SGD(0.1), rigl(end=20, every=1), model=model)
    last = model.trainable_variables[-2:]
    old = optimizer.masks
    optimizer.apply_gradients(zip(make_gradients(last, 0), last, strict=True))
    assert (optimizer.masks["net/fc1/kernel"] == old["net/fc1/kernel"]).all()
    assert (optimizer.masks["net/fc2/kernel"] != old["net/fc2/kernel"]).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights(dtype: str) -> None:
    model = make_model(dtype)
    optimizer = sparsify(keras.optimizers.SGD(0.1, 0.9), rigl(end=20, every=2), model=model)
    for step in range(6):
        optimizer.apply(make_gradients(model.trainable_variables, step))
        masks = optimizer.masks
        assert [int(mask.sum()) for mask in masks.values()] == list(optimizer.plan.active)
        for variable in model.trainable_variables:
            if variable.path in masks:
                assert not np.array(tf.cast(variable, tf.float32))[~masks[variable.path]].any()


def test_the_first_call_may_be_traced() -> None:
    """The topology is drawn once, although the step is traced."""
    model = make_model()
    optimizer = sparsify(keras.optimizers.Adam(), rigl())

    step = compiled(lambda grads: optimizer.apply(grads, model.trainable_variables), "function")
    eager = make_model()
    expected = sparsify(keras.optimizers.Adam(), rigl(), model=eager)
    for number in range(6):
        gradients = make_gradients(model.trainable_variables, number)
        step(gradients)
        expected.apply(gradients)
        for name, mask in expected.masks.items():
            np.testing.assert_array_equal(optimizer.masks[name], mask)
    assert traces(step) == 2  # as with any optimizer of Keras: once more when there is nothing left to make


def test_building_twice_changes_nothing() -> None:
    model = make_model()
    optimizer = sparsify(keras.optimizers.Adam(), rigl(), model=model)
    before = values(model, optimizer)
    optimizer.build(model.trainable_variables)
    assert_same(values(model, optimizer), before)


def test_the_handle() -> None:
    model = make_model()
    optimizer = sparsify(keras.optimizers.Adam(), rigl(), model=model, exclude=["*/fc2/*"])
    masks = optimizer.masks
    assert list(masks) == ["net/fc1/kernel"]
    assert (model.trainable_variables[0].numpy() != 0).tolist() == masks["net/fc1/kernel"].tolist()
    masks["net/fc1/kernel"][...] = True
    assert not optimizer.masks["net/fc1/kernel"].all()
    assert optimizer.table.total_active == sum(optimizer.plan.active) == 36
    assert optimizer.step == 0
    dense = sparsify(keras.optimizers.Adam(), RigL(0.0, schedule=UpdateSchedule(end=1)), model=make_model())
    assert all(mask.all() for mask in dense.masks.values())


def test_embedding_gradients_that_keras_keeps_sparse() -> None:
    """The gradients are slices of an embedding's rows. The embedding is dense, or a layer."""
    for include in ((), ["*embeddings"]):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Embedding(9, 4), keras.layers.Flatten(), keras.layers.Dense(2)]
        )
        optimizer = sparsify(keras.optimizers.SGD(0.1), rigl(end=9, every=2), model=model, include=include)

        def descend(tokens: tf.Tensor, model: Any = model, optimizer: Any = optimizer) -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(tokens) ** 2)
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

        step = compiled(descend, "function")
        for number in range(4):
            step(tf.constant([[number, 1, 2]]))
        assert len(optimizer.masks) == 1 + len(include)
        assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), optimizer.masks)
