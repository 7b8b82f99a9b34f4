"""Truly sparse Dense layers: whole trainings, what is saved, and what users do wrong."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.tf import SparseDense, SparseOptimizer, describe, sparsify
from rigl_backends.tf.drawn import drawn
from rigl_core import (
    SET,
    SNFS,
    Constant,
    CubicRamp,
    DeepR,
    GradualPruning,
    Recipe,
    RigL,
    SparsityWarning,
    Static,
    Uniform,
    UpdateSchedule,
)
from rigl_core.testing.checks import checks
from tests.tf.helpers import compiled

# Keras reads variables in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SCHEDULE = UpdateSchedule(end=40, every=3)
FREE = Uniform(first_dense=False)
RIGL = RigL(0.8, schedule=SCHEDULE, drop_fraction=Constant(0.4), distribution=FREE)
RECIPES: dict[str, Recipe] = {
    "RigL": RIGL,
    "SET": SET(0.8, schedule=SCHEDULE, distribution=FREE),
    "DeepR": DeepR(0.8, schedule=SCHEDULE, distribution=FREE),
}
ACTIVE: Any = {"*": "active"}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
Training = tuple[keras.Model, SparseOptimizer]


def make(storage: Any, recipe: Recipe = RIGL, optimizer: keras.optimizers.Optimizer | None = None) -> Training:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((5, 20)),
            keras.layers.Dense(30, "relu", name="fc1"),
            keras.layers.Dense(30, "tanh", name="fc2"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(10, use_bias=False, name="fc3"),
        ],
        name="net",
    )
    own = keras.optimizers.Adam(0.01) if optimizer is None else optimizer
    return model, sparsify(own, recipe, model=model, storage=storage)


def data(step: int) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(step)
    return tf.constant(rng.normal(size=(8, 5, 20)), tf.float32), tf.constant(rng.integers(0, 10, 8))


def gradients_of(model: keras.Model, x: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        loss = LOSS(labels, model(x))
    gradients: list[tf.Tensor] = tape.gradient(loss, model.trainable_variables)
    return gradients


def stepper(training: Training, mode: str = "eager") -> Callable[[int], None]:
    model, optimizer = training

    def step(x: tf.Tensor, labels: tf.Tensor) -> None:
        optimizer.apply(gradients_of(model, x, labels), model.trainable_variables)

    run = compiled(step, mode)
    return lambda number: run(*data(number))


def train(training: Training, steps: range, mode: str = "eager") -> Training:
    step = stepper(training, mode)
    for number in steps:
        step(number)
    return training


def dense_weights(model: keras.Model) -> list[Any]:
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    return [layer.dense() if isinstance(layer, SparseDense) else layer.kernel.numpy() for layer in layers]


def assert_equal_masks(one: SparseOptimizer, other: SparseOptimizer) -> None:
    assert one.step == other.step
    for name, mask in one.masks.items():
        assert np.array_equal(mask, other.masks[name]), name


def assert_near(one: keras.Model, other: keras.Model) -> None:
    for own, its in zip(dense_weights(one), dense_weights(other), strict=True):
        np.testing.assert_allclose(own, its, rtol=1e-3, atol=1e-4)


@checks("A1", "V1", "V2")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_is_that_with_masks(recipe: str) -> None:
    """In a compiled step; the suite takes eager ones."""
    active, masked = make(ACTIVE, RECIPES[recipe]), make("masks", RECIPES[recipe])
    for training in (active, masked):
        train(training, range(11), "function")
    assert_equal_masks(active[1], masked[1])
    assert_near(active[0], masked[0])
    assert str(active[1].table) == str(masked[1].table)
    sizes = {variable.shape for variable in active[1].inner_optimizer.variables if "fc1_kernel" in variable.name}
    assert sizes == {(120,)}


@checks("A1", "V1")
def test_an_optimizer_that_has_made_dense_steps() -> None:
    """Its state follows the weights; and a new weight gets what the optimizer gives it, here its initial number."""
    trainings = []
    for storage in (ACTIVE, "masks"):
        optimizer = keras.optimizers.Adagrad(0.01, initial_accumulator_value=0.1, use_ema=True)
        model = make("masks", RIGL, keras.optimizers.SGD())[0]
        for number in range(2):
            optimizer.apply(gradients_of(model, *data(number)), model.trainable_variables)
        trainings.append(train((model, sparsify(optimizer, RIGL, model=model, storage=storage)), range(8)))
    (active, own), (masked, other) = trainings
    assert_equal_masks(own, other)
    assert_near(active, masked)


@checks("A1", "G2")
@pytest.mark.parametrize(
    ("storage", "mode"), [(ACTIVE, "eager"), ({"*fc1*": "active", "*fc2*": "masks", "*fc3*": "active"}, "function")]
)
def test_accumulated_gradients(storage: Any, mode: str) -> None:
    """An update reads the mean of all calls of its step."""
    trainings = [
        train(make(own, RIGL, keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)), range(14), mode)
        for own in (storage, "masks")
    ]
    assert_equal_masks(trainings[0][1], trainings[1][1])
    assert_near(trainings[0][0], trainings[1][0])


@checks("A2", "G2")
def test_gradients_added_and_scaled_by_hand() -> None:
    """Of micro-batches; by a loss scale; of a persistent tape that is asked twice."""
    trainings = [make(ACTIVE), make("masks")]
    for model, optimizer in trainings:
        for number in range(7):
            parts = [gradients_of(model, *data(2 * number + part)) for part in (0, 1)]
            optimizer.apply([(a + b) / 64 for a, b in zip(*parts, strict=True)], model.trainable_variables)
        with tf.GradientTape(persistent=True) as tape:
            loss = LOSS(data(30)[1], model(data(30)[0]))
        for _ in range(2):
            gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        assert optimizer.step == 8
        for number in (8, 9):
            stepper((model, optimizer))(number)
    assert_equal_masks(trainings[0][1], trainings[1][1])


@checks("A2")
def test_several_uses_in_one_step() -> None:
    masks = []
    for storage in (ACTIVE, "masks"):
        keras.utils.set_random_seed(0)
        inputs, layer = keras.Input((16,)), keras.layers.Dense(16, "tanh", name="fc")
        model = keras.Model(inputs, layer(layer(inputs)), name="twice")
        optimizer = sparsify(keras.optimizers.SGD(0.1), RIGL, model=model, storage=storage)

        @tf.function
        def step(x: tf.Tensor, model: Any = model, optimizer: Any = optimizer) -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(x) ** 2)
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

        for number in range(8):
            step(data(number)[0][:, 0, :16])
        masks.append(optimizer.masks["fc/kernel"])
    assert np.array_equal(*masks)


def test_fit() -> None:
    """Keras's "auto" does not choose XLA; what follows from samples survives a loss scale."""
    trainings = []
    for storage in (ACTIVE, "masks"):
        model, own = make(storage)
        model.compile(keras.optimizers.LossScaleOptimizer(own, initial_scale=1024.0), LOSS)
        x, labels = (tf.concat(arrays, axis=0) for arrays in zip(*map(data, range(4)), strict=True))
        model.fit(x, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)
        trainings.append((model, own))
    assert_equal_masks(trainings[0][1], trainings[1][1])
    assert_near(trainings[0][0], trainings[1][0])


@checks("P2")
@pytest.mark.parametrize("way", ["keras", "weights", "checkpoint"])
def test_saved_and_resumed(way: str, tmp_path: Path) -> None:
    """The variables say where the weights are, so whatever saves them saves the topology."""
    training = train(make(ACTIVE), range(11))
    training[0].compile(training[1], LOSS)
    if way == "keras":
        training[0].save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
        resumed = (model, model.optimizer)
    else:
        resumed = make(ACTIVE, RIGL)
        resumed[0].compile(resumed[1], LOSS)
        if way == "weights":
            training[0].save_weights(tmp_path / "model.weights.h5")
            resumed[0].load_weights(tmp_path / "model.weights.h5")
        else:
            saved = tf.train.Checkpoint(model=training[0], optimizer=training[1]).write(str(tmp_path / "state"))
            tf.train.Checkpoint(model=resumed[0], optimizer=resumed[1]).read(saved).assert_consumed()
    for own in (training, resumed):
        train(own, range(11, 20))
    for one, other in zip(training[0].variables, resumed[0].variables, strict=True):
        assert np.array_equal(one.numpy(), other.numpy()), one.path
    assert training[1].step == resumed[1].step
    for mask, other in zip(training[1].masks.values(), resumed[1].masks.values(), strict=True):
        assert np.array_equal(mask, other)


@checks("P4")
def test_weights_of_other_places_need_their_state() -> None:
    """What the optimizer holds would be of other connections; with its state, the training goes on."""
    training = model, optimizer = make(ACTIVE)
    best = [variable.numpy() for variable in (*model.variables, *optimizer.variables)]
    train(training, range(5))
    model.set_weights(best[: len(model.variables)])
    assert model(data(0)[0]).shape == (8, 10)
    with pytest.raises(ValueError, match="restored without the optimizer's state"):
        train(training, range(1))
    for variable, value in zip(optimizer.variables, best[len(model.variables) :], strict=True):
        variable.assign(value)
    train(training, range(5))


@checks("P3", "A2")
@pytest.mark.parametrize("mode", ["eager", "function"])
def test_a_gradient_of_something_else_is_refused(mode: str) -> None:
    """At an update: one that was only evaluated besides, given by hand, or changed. The next step is as always."""
    training = model, optimizer = make(ACTIVE)
    gradients_of(model, *data(5))
    before = [variable.numpy() for variable in (*model.variables, *optimizer.variables)]
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="calls of the layer since the last step ga"):
        stepper(training, mode)(0)
    given = [tf.ones(variable.shape) for variable in model.trainable_variables]
    with pytest.raises(ValueError, match="no call of the layer gave it"):
        optimizer.apply(given, model.trainable_variables)
    pulled = [a + 0.1 * b for a, b in zip(gradients_of(model, *data(0)), model.trainable_variables, strict=True)]
    with pytest.raises(ValueError, match="calls of the layer since the last step gave another one"):
        optimizer.apply(pulled, model.trainable_variables)
    for old, variable in zip(before, (*model.variables, *optimizer.variables), strict=True):
        assert np.array_equal(old, variable.numpy())
    train(training, range(4), mode)
    optimizer.apply(given, model.trainable_variables)
    assert optimizer.step == 5


@checks("T5")
def test_a_gradient_that_is_not_finite_defers() -> None:
    trainings = [make(ACTIVE), make("masks")]
    for training in trainings:
        model, optimizer = training
        x, labels = data(0)
        before = optimizer.masks
        optimizer.apply(gradients_of(model, x * np.inf, labels), model.trainable_variables)
        assert all(np.array_equal(mask, before[name]) for name, mask in optimizer.masks.items())
        assert bool(optimizer._training._clock.deferred)
        for layer in model.layers:
            for variable in layer.trainable_variables:
                variable.assign(tf.where(tf.math.is_finite(variable.value), variable.value, 0))


@checks("P3", "A3")
def test_layers_that_cannot_be_active_are_named() -> None:
    """With the reason; and layers that would not be faster, with the size from which they are."""
    inputs = keras.Input((1024,))
    x = keras.layers.Dense(1024, name="plain")(inputs)
    x = keras.layers.Dense(300, name="small")(x)
    x = keras.layers.Dense(300, kernel_regularizer="l2", name="pulled")(x)
    x = keras.layers.Dense(300, kernel_constraint="non_neg", name="bound")(x)
    x = keras.layers.Dense(300, dtype="mixed_bfloat16", name="low")(x)
    x = keras.layers.Reshape((1, 300))(x)
    x = keras.layers.EinsumDense("abc,cd->abd", (1, 300), name="einsum")(x)
    model = keras.Model(inputs, keras.layers.Conv1D(8, 1, name="conv")(x), name="net")
    with pytest.warns(SparsityWarning) as told:
        sparsify(keras.optimizers.SGD(), RIGL, model=model, storage="active")
    message = next(str(one.message) for one in told if "keep their masks" in str(one.message))
    for reason in (
        "'small/kernel' has 307,200 connections, and in TensorFlow products pay from 1,048,576 on",
        "'pulled/kernel' has a kernel_regularizer",
        "'bound/kernel' has a kernel_constraint",
        "'low/kernel' is bfloat16",
        "'einsum/kernel' belongs to a EinsumDense",
        "'conv/kernel' belongs to a Conv1D",
    ):
        assert reason in message
    kinds = {layer.name: type(layer) for layer in model.layers}
    assert kinds["plain"] is SparseDense
    assert kinds["pulled"] is keras.layers.Dense


@checks("P3")
def test_refused_before_anything_changes() -> None:
    model = make("masks")[0]
    before = [variable.numpy() for variable in model.variables]
    ramp = GradualPruning(0.9, schedule=SCHEDULE, ramp=CubicRamp(initial=0.6), distribution=FREE)
    for recipe, storage, message in (
        (SNFS(0.8, schedule=SCHEDULE, distribution=FREE), ACTIVE, "SNFS reads a momentum"),
        (ramp, ACTIVE, "recipe's ramp, and variables of TensorFlow keep their shape"),
        (RIGL, {"*": "dense"}, "storage is 'dense'"),
    ):
        with pytest.raises(ValueError, match=message):
            sparsify(keras.optimizers.SGD(), recipe, model=model, storage=storage)
    with pytest.raises(ValueError, match="there is no model"):
        sparsify(keras.optimizers.SGD(), RIGL, storage="active")
    for old, variable in zip(before, model.variables, strict=True):
        assert np.array_equal(old, variable.numpy())


@checks("P3")
def test_mistakes_are_named(tmp_path: Path) -> None:
    training = model, optimizer = make(ACTIVE)
    with pytest.raises(ValueError, match=r"layer 'fc1' holds only its active weights.*jit_compile=False"):
        stepper(training, "xla")(0)
    with pytest.raises(TypeError, match="layer 'fc1' got float64 inputs"):
        model.layers[0].product(tf.zeros((2, 20), tf.float64))
    with tf.GradientTape() as tape:
        loss = LOSS(data(0)[1], model(data(0)[0]))
    train(training, range(1))
    with pytest.raises(ValueError, match="of a call before an update"):
        tape.gradient(loss, model.trainable_variables)
    x = data(0)[0]
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = model(x)
        slope = inner.gradient(y, x)
    with pytest.raises(NotImplementedError, match="is differentiable once"):
        outer.gradient(slope, x)
    with pytest.raises(ValueError, match=r"layer 'fc1' holds only its active weights, and its kernels cannot be exp"):
        tf.saved_model.save(model, str(tmp_path))
    clone = keras.models.clone_model(model)
    with pytest.raises(ValueError, match="has no connections yet"):
        clone(data(0)[0])
    clone.set_weights(model.get_weights())
    assert np.array_equal(clone(data(0)[0]), model(data(0)[0]))
    assert optimizer.step == 1
    with pytest.raises(ValueError, match=r"has the layer 'fc1', which holds only its active weights"):
        describe(model, data(0)[0])
    other = Static(0.5, distribution=FREE)
    with pytest.raises(ValueError, match=r"holds 120 active weights already .*, and the plan has 300"):
        sparsify(keras.optimizers.SGD(), other, model=model)


def test_what_was_traced_before_gives_no_old_results() -> None:
    model = make("masks")[0]
    old = tf.function(model)
    x = data(0)[0]
    old(x)
    model.predict(x, verbose=0)
    sparsify(keras.optimizers.SGD(), RIGL, model=model, storage=ACTIVE)
    assert np.isnan(old(x)).all()
    np.testing.assert_allclose(model.predict(x, verbose=0), model(x), rtol=1e-5)


def described(initializer: Any = "glorot_uniform") -> keras.Sequential:
    """Two layers whose dense kernels, of 64 MB and more, are never there, and a small one."""
    wide = [SparseDense(4096, "relu", kernel_initializer=initializer, name=name) for name in ("wide1", "wide2")]
    return keras.Sequential([keras.Input((64,)), keras.layers.Dense(4096), *wide, keras.layers.Dense(3)])


def test_described_layers_are_never_dense(tmp_path: Path) -> None:
    """They train, and their values have the variance of a dense kernel; a saved model is loaded as any other."""
    keras.utils.set_random_seed(0)
    model = described()
    assert [layer.count_params() for layer in model.layers[1:3]] == [4096, 4096]
    recipe = RigL(0.99, schedule=UpdateSchedule(end=9, every=2), distribution=FREE)
    options: Any = {"storage": {"*wide*": "active"}, "exclude": ["*dense*"]}
    tracemalloc.start()
    optimizer = sparsify(keras.optimizers.SGD(0.01), recipe, model=model, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000
    assert all(variable.shape.num_elements() < 300_000 for variable in model.variables)
    values = model.get_layer("wide1").kernel.numpy()
    assert values.shape == (round(0.01 * 4096 * 4096),)
    np.testing.assert_allclose(values.std(), np.sqrt(2 / (2 * 4096)), rtol=0.02)
    model.compile(optimizer, LOSS)
    x, labels = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32), np.arange(8) % 3
    model.fit(x, labels, batch_size=4, epochs=3, verbose=0)
    assert optimizer.step == 6
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras").predict(x, verbose=0), expected)


def test_described_layers_are_refused_where_they_would_be_dense() -> None:
    x = np.zeros((2, 64), np.float32)
    model = described()
    with pytest.raises(ValueError, match="layer 'wide1' was described, and has no connections: call sparsify"):
        model(x)
    with pytest.raises(ValueError, match="layer 'wide1' was described, and has no connections"):
        sparsify(keras.optimizers.SGD(), RIGL, model=model)
    with pytest.raises(ValueError, match="layer 'wide2' was described, but by plan and storage it is no layer"):
        sparsify(keras.optimizers.SGD(), RIGL, model=model, storage={"*wide1*": "active"})
    built = keras.optimizers.Adam()
    built.build(model.trainable_variables)
    with pytest.raises(ValueError, match="optimizer was built before layer 'wide1'"):
        sparsify(built, RIGL, model=model, storage={"*wide*": "active"})
    with pytest.raises(ValueError, match="layer 'wide1' was described, and its kernel_initializer Orthogonal draws"):
        sparsify(keras.optimizers.SGD(), RIGL, model=described("orthogonal"), storage={"*wide*": "active"})
    assert all(layer.is_described for layer in model.layers[1:3])


@pytest.mark.parametrize(
    "initializer",
    [
        *("glorot_normal", "he_uniform", "lecun_normal", "random_normal", "random_uniform", "truncated_normal", "ones"),
        keras.initializers.VarianceScaling(3.0, "fan_out", "untruncated_normal"),
    ],
)
def test_values_are_drawn_as_those_of_a_dense_kernel(initializer: Any) -> None:
    keras.utils.set_random_seed(0)
    own = keras.initializers.get(initializer)
    dense = keras.ops.convert_to_numpy(own((300, 200)))
    values = drawn("fc", own, (300, 200), 30_000)
    assert values.dtype == np.float32
    assert values.shape == (30_000,)
    np.testing.assert_allclose([values.mean(), values.std()], [dense.mean(), dense.std()], rtol=0.02, atol=2e-3)
    np.testing.assert_allclose(np.abs(values).max(), np.abs(dense).max(), rtol=0.15)
