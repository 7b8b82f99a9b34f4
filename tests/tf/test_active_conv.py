"""Truly sparse convolutions: their products, whole trainings, what is saved, and what users do wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends import numpy as rigl_numpy
from rigl_backends.tf import SparseConv2D, SparseOptimizer, choose_layers, sparsify
from rigl_backends.tf.drawn import drawn
from rigl_core import Constant, Recipe, RigL, SparsityWarning, Static, Uniform, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.tf.helpers import compiled

# Keras reads variables in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

FREE = Uniform(first_dense=False)
RIGL = RigL(0.7, schedule=UpdateSchedule(end=30, every=3), drop_fraction=Constant(0.4), distribution=FREE)
ACTIVE: Any = {"*": "active"}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 1, "use_bias": False},
    "valid": {"kernel_size": (3, 2), "activation": "relu"},
    "same": {"kernel_size": (2, 4), "padding": "same"},
    "strides": {"kernel_size": 3, "strides": (2, 3), "padding": "same", "groups": 2},
    "far": {"kernel_size": 1, "strides": 3, "padding": "same"},
    "dilation": {"kernel_size": (3, 2), "dilation_rate": (2, 1), "padding": "same", "activation": "tanh"},
}
Training = tuple[keras.Model, SparseOptimizer]


def images(seed: int, *shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def twins(recipe: Recipe = RIGL, **options: Any) -> tuple[SparseConv2D, keras.layers.Conv2D]:
    """Two equal layers, of which one is truly sparse, and the other one has its kernel with zeros."""
    layers = []
    for storage in (ACTIVE, "masks"):
        keras.utils.set_random_seed(0)
        layer = keras.layers.Conv2D(6, bias_initializer="normal", name="conv", **options)
        shape = (None, None, 4) if layer.data_format == "channels_last" else (4, None, None)
        model = keras.Sequential([keras.Input(shape), layer], name="net")
        sparsify(keras.optimizers.SGD(), recipe, model=model, storage=storage)
        layers.append(layer)
    return layers[0], layers[1]


def gradients_of(layer: Any, x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    found: list[tf.Tensor] = tape.gradient(y, [x, *layer.trainable_variables], dy)
    return [y, *found]


@checks("A1")
@pytest.mark.parametrize("mode", ["eager", "function"])
@pytest.mark.parametrize("name", OPTIONS)
def test_products_are_those_of_a_dense_layer(name: str, mode: str) -> None:
    """The outputs, and the gradients of inputs, active weights and bias; images of two sizes in one trace."""
    sparse, dense = twins(**OPTIONS[name])
    assert type(sparse) is SparseConv2D
    np.testing.assert_array_equal(sparse.dense(), dense.kernel.numpy())
    signature = [tf.TensorSpec((None, None, None, channels)) for channels in (4, 6)]
    run = tf.function(lambda x, dy: gradients_of(sparse, x, dy), signature) if mode == "function" else None
    for size in ((7, 8), (8, 5)):
        x = images(1, 3, *size, 4)
        dy = images(2, *dense(x).shape)
        own = gradients_of(sparse, x, dy) if run is None else run(x, dy)
        y, dx, kernel, *bias = gradients_of(dense, x, dy)
        expected = [y, dx, sparse.index.values(kernel.numpy()), *bias]
        for one, other in zip(own, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_channels_first() -> None:
    """TensorFlow has no such convolution on CPUs, so the other order tells."""
    options: dict[str, Any] = {"kernel_size": 3, "strides": 2, "padding": "same"}
    first, last = twins(data_format="channels_first", **options)[0], twins(**options)[0]
    x = images(1, 3, 7, 8, 4)
    dy = images(2, *last(x).shape)
    turned = gradients_of(first, tf.transpose(x, (0, 3, 1, 2)), tf.transpose(dy, (0, 3, 1, 2)))
    for i, (own, expected) in enumerate(zip(turned, gradients_of(last, x, dy), strict=True)):
        own_last = tf.transpose(own, (0, 2, 3, 1)) if i < 2 else own
        np.testing.assert_allclose(own_last, expected, rtol=1e-5, atol=1e-5)


@checks("A2")
def test_updates_are_those_of_numpy() -> None:
    """Bit for bit, given equal images and output gradients, also of two calls."""
    layer = keras.layers.Conv2D(6, (3, 2), use_bias=False, groups=2, name="conv")
    model = keras.Sequential([keras.Input((7, 8, 4)), layer], name="net")
    (described,) = choose_layers(model)
    params = {described.name: layer.kernel.numpy()}
    numpy_optimizer = rigl_numpy.SGD(params, 0.0)
    own = rigl_numpy.sparsify(params, numpy_optimizer, RIGL, layers=[described], storage={described.name: "active"})
    optimizer = sparsify(keras.optimizers.SGD(0.0), RIGL, model=model, storage=ACTIVE)
    conv, moved = own.conv[described.name], 0
    for step in range(8):
        before = optimizer.masks[described.name]
        xs = [images(2 * step + part, 3, 7, 8, 4) for part in (0, 1)]
        dys = [images(100 + 2 * step + part, 3, 5, 7, 6) for part in (0, 1)]
        with tf.GradientTape() as tape:
            total = tf.add_n([tf.reduce_sum(layer(x) * dy) for x, dy in zip(xs, dys, strict=True)])
        optimizer.apply(tape.gradient(total, model.trainable_variables), model.trainable_variables)
        turned = [[np.transpose(part, (0, 3, 1, 2)) for part in parts] for parts in (xs, dys)]
        first, second = (conv.backward(x, dy)[1] for x, dy in zip(*turned, strict=True))
        numpy_optimizer.step({described.name: first + second})
        after = optimizer.masks[described.name]
        np.testing.assert_array_equal(after, own.masks[described.name])
        np.testing.assert_array_equal(layer.dense(), conv.dense())
        moved += int((before != after).any())
    assert moved == 3


def make(storage: Any) -> Training:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((9, 8, 3)),
            keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv1"),
            keras.layers.Conv2D(8, 3, groups=2, name="conv2"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, name="head"),
        ],
        name="net",
    )
    optimizer = sparsify(keras.optimizers.Adam(0.01), RIGL, model=model, storage=storage)
    model.compile(optimizer, LOSS)
    return model, optimizer


def train(training: Training, steps: range, mode: str = "eager") -> Training:
    model, optimizer = training

    def step(x: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = LOSS(labels, model(x))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    run = compiled(step, mode)
    for number in steps:
        run(images(number, 4, 9, 8, 3), tf.constant(np.arange(number, number + 4) % 5))
    return training


def kernel_of(layer: Any) -> Any:
    return layer.dense() if isinstance(layer, SparseConv2D) else layer.kernel.numpy()


@checks("A1", "V1", "V2")
def test_a_training_is_that_with_masks() -> None:
    active, own = train(make({"*conv*": "active"}), range(8), "function")
    masked, other = train(make("masks"), range(8))
    assert own.step == other.step == 8
    for name, mask in own.masks.items():
        assert np.array_equal(mask, other.masks[name]), name
    for name in ("conv1", "conv2"):
        pair = [kernel_of(model.get_layer(name)) for model in (active, masked)]
        np.testing.assert_allclose(*pair, rtol=1e-3, atol=1e-4)
    assert str(own.table) == str(other.table)
    sizes = {variable.shape for variable in own.inner_optimizer.variables if "conv2_kernel" in variable.name}
    assert sizes == {(round(0.3 * 8 * 4 * 9),)}


@checks("P2")
@pytest.mark.parametrize("way", ["keras", "checkpoint"])
def test_saved_and_resumed(way: str, tmp_path: Path) -> None:
    training = train(make(ACTIVE), range(7))
    if way == "keras":
        training[0].save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
        resumed = (model, model.optimizer)
    else:
        resumed = make(ACTIVE)
        saved = tf.train.Checkpoint(model=training[0], optimizer=training[1]).write(str(tmp_path / "state"))
        tf.train.Checkpoint(model=resumed[0], optimizer=resumed[1]).read(saved).assert_consumed()
    for own in (training, resumed):
        train(own, range(7, 13))
    for one, other in zip(training[0].variables, resumed[0].variables, strict=True):
        assert np.array_equal(one.numpy(), other.numpy()), one.path
    assert training[1].step == resumed[1].step


def test_a_described_layer(tmp_path: Path) -> None:
    """It is never dense, trains, and its values have the variance of a dense kernel; it is loaded as any other."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((2, 2, 512)),
            SparseConv2D(1024, (2, 3), padding="same", groups=2, name="wide"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="head"),
        ]
    )
    recipe = RigL(0.99, schedule=UpdateSchedule(end=9, every=2), distribution=FREE)
    optimizer = sparsify(
        keras.optimizers.SGD(0.01), recipe, model=model, exclude=["*head*"], storage={"*wide*": "active"}
    )
    values = model.get_layer("wide").kernel.numpy()
    assert values.shape == (round(0.01 * 6 * 256 * 1024),)
    np.testing.assert_allclose(values.std(), np.sqrt(2 / (6 * (256 + 1024))), rtol=0.02)
    model.compile(optimizer, LOSS)
    x = images(0, 8, 2, 2, 512)
    model.fit(x, np.arange(8) % 3, batch_size=4, epochs=2, verbose=0)
    assert optimizer.step == 4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_values_are_drawn_as_those_of_a_dense_kernel() -> None:
    for mode in ("fan_in", "fan_out", "fan_avg"):
        own = keras.initializers.VarianceScaling(1.0, mode, seed=0)
        dense = keras.ops.convert_to_numpy(own((3, 2, 100, 50)))
        np.testing.assert_allclose(drawn("conv", own, (3, 2, 100, 50), 30_000).std(), dense.std(), rtol=0.02)


@checks("P3", "A3")
def test_layers_that_keep_their_masks_are_named() -> None:
    inputs = keras.Input((4, 4, 512))
    x = keras.layers.Conv2D(512, 3, name="plain")(inputs)
    x = keras.layers.Conv2D(512, 3, padding="same", groups=8, name="grouped")(x)
    x = keras.layers.Conv2D(16, 1, kernel_regularizer="l2", name="pulled")(x)
    x = keras.layers.Conv2D(16, 1, dtype="mixed_bfloat16", name="low")(x)
    model = keras.Model(inputs, keras.layers.Conv2DTranspose(16, 1, name="turned")(x), name="net")
    recipe = Static(0.95, distribution=FREE)
    with pytest.warns(SparsityWarning) as told:
        sparsify(keras.optimizers.SGD(), recipe, model=model, storage="active")
    message = next(str(one.message) for one in told if "keep their masks" in str(one.message))
    for reason in (
        "'grouped/kernel' has 36,864 connections a group, and in TensorFlow products pay from 524,288 on",
        "'pulled/kernel' has a kernel_regularizer",
        "'low/kernel' is bfloat16",
        "'turned/kernel' belongs to a Conv2DTranspose, and only a plain keras.layers.Dense or Conv2D can",
    ):
        assert reason in message
    assert {layer.name for layer in model.layers if isinstance(layer, SparseConv2D)} == {"plain"}


@checks("P3")
def test_mistakes_are_named() -> None:
    layer = twins(kernel_size=3)[0]
    with pytest.raises(TypeError, match="layer 'conv' got float64 inputs"):
        layer.product(tf.zeros((1, 5, 5, 4), tf.float64))
    with pytest.raises(ValueError, match=r"shape \(1, 5, 5, 3\): layer 'conv' reads images of 4 channels, channels_la"):
        layer.product(tf.zeros((1, 5, 5, 3)))
    with pytest.raises(ValueError, match="compile with jit_compile=False"):
        tf.function(layer, jit_compile=True)(tf.zeros((1, 5, 5, 4)))
    described = SparseConv2D(8, 3, name="new")
    described.build((None, 5, 5, 4))
    with pytest.raises(ValueError, match="layer 'new' was described, and has no connections: call sparsify"):
        described(tf.zeros((1, 5, 5, 4)))
    with pytest.raises(ValueError, match="inputs have 4 channels, which 3 groups do not divide"):
        SparseConv2D(9, 3, groups=3).build((None, 5, 5, 4))
