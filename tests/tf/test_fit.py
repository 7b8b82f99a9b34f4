"""Training as users of Keras do: with compile and fit, and with custom loops."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.tf import sparsify
from rigl_core import Cosine, RigL, UpdateSchedule
from tests.tf.helpers import LOSS, assert_zero_outside, compiled, layer_arrays, make_data, make_model, rigl, traces

# Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

FIT: dict[str, tuple[str, dict[str, Any]]] = {
    "graph": ("function", {"jit_compile": False}),
    "xla": ("xla", {"jit_compile": True}),
    "eager": ("eager", {"run_eagerly": True}),
    "several steps an execution": ("function", {"jit_compile": False, "steps_per_execution": 4}),
}


@pytest.mark.parametrize("mode", FIT)
def test_fit_is_a_loop_of_ones_own(mode: str) -> None:
    """model.fit and a custom training loop give the same masks after every epoch."""
    x, y = make_data()
    model, own = make_model(), make_model()
    optimizer = sparsify(keras.optimizers.Adam(0.01), rigl())
    if mode == "eager":  # fit() builds the optimizer itself, but here only after a forward pass
        optimizer.build(model.trainable_variables)
    model.compile(optimizer, LOSS, **FIT[mode][1])
    expected = sparsify(keras.optimizers.Adam(0.01), rigl(), model=own)

    def descend(inputs: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = LOSS(labels, own(inputs, training=True))
        variables = own.trainable_variables
        expected.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    step = compiled(descend, FIT[mode][0])
    for epoch in range(3):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        for inputs, labels in zip(np.split(x, 8), np.split(y, 8), strict=True):
            step(tf.constant(inputs), tf.constant(labels))
        assert optimizer.step == expected.step == 8 * (epoch + 1)
        assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), optimizer.masks)
        for name, mask in expected.masks.items():
            np.testing.assert_array_equal(optimizer.masks[name], mask)
    assert traces(step) <= 1


@pytest.mark.parametrize("jit_compile", [False, True])
def test_mixed_precision_puts_a_loss_scale_optimizer_outside(jit_compile: bool) -> None:
    x, y = make_data()
    keras.utils.set_random_seed(0)
    policy = keras.DTypePolicy("mixed_float16")
    layers = [keras.layers.Dense(10, "relu", name="a", dtype=policy), keras.layers.Dense(6, name="b", dtype=policy)]
    model = keras.Sequential([keras.Input((12,)), *layers], name="m", trainable=True)
    sparse = sparsify(keras.optimizers.Adam(0.01, use_ema=True), rigl())
    model.compile(keras.optimizers.LossScaleOptimizer(sparse), LOSS, jit_compile=jit_compile)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights()])
    assert sparse.step == 16
    assert_zero_outside(layer_arrays(sparse, model.trainable_variables), sparse.masks)


def test_callbacks_find_what_they_look_for() -> None:
    x, y = make_data()
    model = make_model()
    optimizer = sparsify(keras.optimizers.SGD(1.0, use_ema=True), rigl())
    model.compile(optimizer, LOSS)
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    model.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=[halve, keras.callbacks.SwapEMAWeights()])
    assert float(optimizer.inner_optimizer.learning_rate) == 0.125
    assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), optimizer.masks)


def test_learning_rate_schedules_count_gradient_steps() -> None:
    """At an update the inner optimizer makes no step, so its schedule stays too."""
    x, y = make_data()
    model = make_model()
    decay = keras.optimizers.schedules.PiecewiseConstantDecay([5], [1.0, 0.5])
    optimizer = sparsify(keras.optimizers.SGD(decay), rigl(end=8, every=4))
    model.compile(optimizer, LOSS)
    model.fit(x, y, batch_size=16, verbose=0)
    assert (optimizer.step, int(optimizer.iterations)) == (8, 6)
    assert float(optimizer.learning_rate) == 0.5


def test_a_convnet_with_recurrent_and_depthwise_layers() -> None:
    keras.utils.set_random_seed(0)
    kl = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            kl.Conv2D(6, 3, activation="relu"),
            kl.DepthwiseConv2D(3),
            kl.Conv2DTranspose(4, 2),
            kl.Reshape((5, 20)),
            kl.LSTM(8, return_sequences=True),
            kl.GRU(8, return_sequences=True),
            kl.Conv1D(4, 3),
            kl.Flatten(),
            kl.Dense(6),
        ]
    )
    optimizer = sparsify(keras.optimizers.Adam(0.01), rigl(end=6, every=2), model=model)
    model.compile(optimizer, LOSS, jit_compile=False)
    initial = optimizer.masks
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(64, 8, 8, 1)), rng.integers(0, 6, 64), batch_size=8, verbose=0)
    assert len(initial) == 8
    assert not any("depthwise" in name for name in initial)
    sparse = [optimizer.plan.layers[i].name for i in optimizer.plan.sparse_layers]
    assert all((initial[name] != optimizer.masks[name]).any() for name in sparse)
    assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), optimizer.masks)


def test_rigl_learns() -> None:
    """A network of 90 % sparsity learns a task that depends on a few inputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2048, 40)).astype(np.float32)
    y = (x[:, 3] > 0).astype(np.int64) + 2 * (x[:, 17] > 0)
    accuracies = {}
    for alpha in (0.0, 0.3):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(32, "relu", name="a"), keras.layers.Dense(4, name="b")]
        model = keras.Sequential([keras.Input((40,)), *layers], name="m")
        schedule = UpdateSchedule.for_training(320, every=16)
        recipe = RigL(0.95, schedule=schedule, drop_fraction=Cosine(alpha))
        model.compile(sparsify(keras.optimizers.Adam(0.01), recipe), LOSS, metrics=["accuracy"])
        model.fit(x, y, batch_size=64, epochs=10, verbose=0)
        accuracies[alpha] = model.evaluate(x, y, verbose=0)[1]
    assert accuracies[0.3] > accuracies[0.0] + 0.05
    assert accuracies[0.3] > 0.9
