"""A run changes its storage: masks to active weights and back, without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.keras_common.state import state_of
from rigl_backends.tf import SparseConv2D, SparseDense, SparseOptimizer, resume, sparsify
from rigl_backends.tf.layer import SparseLayer
from rigl_core import Constant, DeepR, GraSP, Recipe, RigL, Uniform, UpdateSchedule
from rigl_core.testing.checks import checks

# Keras reads variables in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

OPTIONS: dict[str, Any] = {"schedule": UpdateSchedule(end=40, every=3), "distribution": Uniform(first_dense=False)}
RIGL = RigL(0.8, drop_fraction=Constant(0.4), **OPTIONS)
ACTIVE: Any = {"*": "active"}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
Training = tuple[keras.Model, SparseOptimizer]


def make(storage: Any, recipe: Recipe = RIGL, optimizer: keras.optimizers.Optimizer | None = None) -> Training:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(30, "tanh", name="fc1"),
            keras.layers.Dense(5, use_bias=False, name="fc2"),
        ],
        name="net",
    )
    own = keras.optimizers.Adagrad(0.05, initial_accumulator_value=0.1) if optimizer is None else optimizer
    sparse = sparsify(own, recipe, model=model, storage=storage)
    model.compile(sparse, LOSS)
    return model, sparse


def data(number: int) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(number)
    return tf.constant(rng.normal(size=(4, 6, 6, 4)), tf.float32), tf.constant(rng.integers(0, 5, 4))


def train(training: Training, steps: range) -> Training:
    model, optimizer = training
    for number in steps:
        x, labels = data(number)
        with tf.GradientTape() as tape:
            loss = LOSS(labels, model(x))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return training


def in_storage(training: Training, storage: Any) -> Training:
    return training[0], resume(training[1], model=training[0], storage=storage)


def arrays(training: Training) -> dict[str, Any]:
    """All that a training consists of, in the form that it has with masks, and inside these."""
    model, optimizer = training
    masks, state = optimizer.masks, state_of(optimizer.inner_optimizer, model.trainable_variables)
    found: dict[str, Any] = {"step": optimizer.step}
    for variable, own in zip(model.trainable_variables, state, strict=True):
        link = getattr(variable, "link", None)
        index = None if link is None else link.index(*(place.numpy() for place in link.places))
        for i, one in enumerate([variable, *own]):
            array = one.numpy() if index is None else index.dense(one.numpy()).reshape(link.shape)
            found[f"{variable.path} {i}"] = array * masks.get(variable.path, True)
    memory = [(mask, layer.whole_memory()) for mask, layer in zip(masks.values(), layers_of(optimizer), strict=True)]
    signs = {f"sign {i}": own["sign"] * mask.reshape(-1) for i, (mask, own) in enumerate(memory) if own}
    return {name.removeprefix("net/"): array for name, array in (found | masks | signs).items()}


def layers_of(optimizer: SparseOptimizer) -> list[SparseLayer]:
    assert optimizer._training is not None
    return list(optimizer._training.layers.values())


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def assert_near(one: Training, other: Training) -> None:
    """Equal masks, and numbers that differ as sums in another order do."""
    own, its = arrays(one), arrays(other)
    for name, array in own.items():
        if not name[-1].isdigit():
            np.testing.assert_array_equal(array, its[name], err_msg=name)
        np.testing.assert_allclose(array, its[name], rtol=1e-3, atol=1e-4, err_msg=name)


@checks("A1", "P2")
@pytest.mark.parametrize("recipe", [RIGL, DeepR(0.8, **OPTIONS)], ids=["RigL", "DeepR"])
def test_there_and_back_without_loss(recipe: Recipe) -> None:
    """And in each storage the training goes on as if it had not changed; also layer by layer."""
    masked, other = (train(make("masks", recipe), range(4)) for _ in range(2))
    before = arrays(masked)
    active = in_storage(masked, ACTIVE)
    assert [type(active[0].get_layer(name)) for name in ("conv", "fc1")] == [SparseConv2D, SparseDense]
    assert_equal(arrays(active), before)
    back = in_storage(active, "masks")
    assert [type(layer) for layer in back[0].layers] == [type(layer) for layer in other[0].layers]
    assert_equal(arrays(back), before)
    for own, its in zip(back[1].variables, other[1].variables, strict=True):
        assert own.name == its.name
        if "sign" not in own.name:  # outside the masks nothing reads it
            np.testing.assert_array_equal(own.numpy(), its.numpy(), err_msg=own.name)
    mixed = train(in_storage(back, {"*conv*": "masks", "*fc*": "active"}), range(4, 8))
    assert_near(mixed, train(other, range(4, 8)))
    assert_near(
        train(in_storage(mixed, {"*conv*": "active", "*fc*": "masks"}), range(8, 11)), train(other, range(8, 11))
    )


@checks("A1", "P2")
@pytest.mark.parametrize(("saved", "storage"), [("masks", ACTIVE), (ACTIVE, "masks")], ids=["masks", "active"])
def test_a_loaded_model_goes_on(saved: Any, storage: Any, tmp_path: Path) -> None:
    """In another storage: compiled again, in fit(); and is saved as any other."""
    training = train(make(saved, optimizer=keras.optimizers.Adam(0.01)), range(4))
    training[0].save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    loaded = in_storage((model, model.optimizer), storage)
    assert_equal(arrays(loaded), arrays(training))
    loaded[0].compile(loaded[1], LOSS)
    x, labels = (tf.concat(parts, axis=0) for parts in zip(*map(data, range(4, 8)), strict=True))
    loaded[0].fit(x, labels, batch_size=4, shuffle=False, verbose=0)
    train(training, range(4, 8))
    assert_near(loaded, training)
    loaded[0].save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    assert_equal(arrays((again, again.optimizer)), arrays(loaded))


@checks("P3")
@pytest.mark.parametrize(("saved", "other"), [("masks", ACTIVE), (ACTIVE, "masks")], ids=["masks", "active"])
def test_checkpoints_of_tensorflow_tell_the_way(saved: Any, other: Any, tmp_path: Path) -> None:
    """Their variables have one shape: they are read in their storage, which then changes."""
    training, own = train(make(saved), range(4)), make(other)
    path = tf.train.Checkpoint(model=training[0], optimizer=training[1]).write(str(tmp_path / "state"))
    before = arrays(own)
    word = "masks" if saved == "masks" else "active"
    with pytest.raises(ValueError, match=f"saved with storage='{word}' for 'net/conv/kernel', .*rigl_backends.tf.resu"):
        tf.train.Checkpoint(model=own[0], optimizer=own[1]).read(path)
    assert_equal(arrays(own), before)
    right = make(saved)
    tf.train.Checkpoint(model=right[0], optimizer=right[1]).read(path).assert_consumed()
    assert_equal(arrays(in_storage(right, other)), arrays(training))


@checks("P3")
def test_weight_files_tell_the_way(tmp_path: Path) -> None:
    """Keras finds layers in them by the names of their classes; to a dense layer it says so itself."""
    trainings = {"masks": make("masks"), "active": make(ACTIVE)}
    for word, training in trainings.items():
        training[0].save_weights(tmp_path / f"{word}.weights.h5")
    before = {word: arrays(training) for word, training in trainings.items()}
    with pytest.raises(ValueError, match=r"'conv' holds active weights, and the file .*rigl_backends\.tf\.resume"):
        trainings["active"][0].load_weights(tmp_path / "masks.weights.h5")
    fc1 = {"0": np.ones((8, 30), np.float32), "1": np.ones(30, np.float32)}
    with pytest.raises(ValueError, match="'fc1' holds active weights, and the file has none for it"):
        trainings["active"][0].get_layer("fc1").load_own_variables(fc1)  # as in models with layers as attributes
    with pytest.raises(ValueError, match="SparseOptimizer object"):
        trainings["masks"][0].load_weights(tmp_path / "active.weights.h5")
    for word, training in trainings.items():
        assert_equal(arrays(training), before[word])


@checks("P3")
def test_an_optimizer_of_another_storage_is_refused() -> None:
    """Whoever gives it the variables that Keras saved."""
    masked, active = make("masks")[1], make(ACTIVE)[1]
    for own, other, word in ((masked, active, "active"), (active, masked, "masks")):
        store: dict[str, Any] = {}
        other.save_own_variables(store)
        with pytest.raises(ValueError, match=f"state was saved with storage='{word}' for 'net/conv/kernel'"):
            own.load_own_variables(store)


@checks("P3")
def test_mistakes_are_named() -> None:
    training = model, optimizer = make("masks")
    before = arrays(training)
    with pytest.raises(ValueError, match="optimizer is a LossScaleOptimizer: give its inner_optimizer"):
        resume(keras.optimizers.LossScaleOptimizer(optimizer), model=model, storage=ACTIVE)
    with pytest.raises(TypeError, match="optimizer"):
        resume(optimizer.inner_optimizer, model=model, storage=ACTIVE)
    with pytest.raises(ValueError, match="model does not have the variables that the optimizer trains"):
        resume(optimizer, model=make("masks")[0], storage=ACTIVE)
    with pytest.raises(ValueError, match="in TensorFlow products pay from"):
        resume(optimizer, model=model, storage="active")
    with pytest.raises(ValueError, match="storage is 'dense'"):
        resume(optimizer, model=model, storage={"*": "dense"})
    assert_equal(arrays(training), before)
    assert in_storage(training, ACTIVE)[1].step == 0
    with pytest.raises(ValueError, match="use the optimizer that it returned"):
        train(training, range(1))
    accumulating = train(make("masks", RIGL, keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)), range(1))
    with pytest.raises(ValueError, match="has accumulated gradients for a step that is not made yet"):
        in_storage(accumulating, ACTIVE)


def test_no_scores_are_asked_for_again() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(30, name="fc")], name="net")
    scores = {"net/fc/kernel": np.random.default_rng(0).random((20, 30)).astype(np.float32)}
    recipe = GraSP(0.8, distribution=OPTIONS["distribution"])
    training = model, sparsify(keras.optimizers.SGD(), recipe, model=model, scores=scores)
    before = arrays(training)
    assert_equal(arrays(in_storage(training, ACTIVE)), before)


def test_a_model_can_be_exported_after_it(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(30, name="fc")], name="net")
    optimizer = sparsify(keras.optimizers.SGD(), RIGL, model=model, storage=ACTIVE)
    x = tf.ones((2, 20))
    expected = model(x)
    with pytest.raises(ValueError, match=r"cannot be exported: call rigl_backends\.tf\.resume"):
        tf.saved_model.save(model, str(tmp_path))
    resume(optimizer, model=model, storage="masks")
    tf.saved_model.save(model, str(tmp_path))
    (own,) = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](x).values()
    np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)
