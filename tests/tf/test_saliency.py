"""Scores of real models, compared with finite differences and products by hand. Models stay as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers as kl

from rigl_backends.tf import grasp_scores, sparsify, synflow_scores
from rigl_core import GraSP, Layer, SynFlow
from rigl_core.testing.checks import checks
from tests.tf.helpers import LOSS, assert_same, make_data, make_gradients, make_model, values

Array = npt.NDArray[Any]


EXACT_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")


def smooth_model() -> keras.Model:
    """A smooth float64 model, so that finite differences give second derivatives."""
    keras.utils.set_random_seed(3)
    layers = [kl.Dense(5, "tanh", name="a", dtype="float64"), kl.Dense(3, name="b", dtype="float64")]
    return keras.Sequential([keras.Input((4,), dtype="float64"), *layers], name="smooth")


def gradients(model: keras.Model, loss: Callable[[], tf.Tensor]) -> list[Array]:
    kernels = [layer.kernel.value for layer in model.layers]
    with tf.GradientTape() as tape:
        value = loss()
    return [gradient.numpy() for gradient in tape.gradient(value, kernels)]


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_the_weight_times_the_hessian_gradient_product(temperature: float) -> None:
    """H g is the derivative of the gradient g in direction g. As in the published code, g covers the kernels only."""
    rng = np.random.default_rng(0)
    model, x, y = smooth_model(), rng.normal(size=(8, 4)), rng.integers(0, 3, 8)
    found = grasp_scores(model, EXACT_LOSS, x, y, temperature=temperature)
    kernels = [layer.kernel for layer in model.layers]
    start = [kernel.numpy() for kernel in kernels]

    def gradient_at(step: float) -> list[Array]:
        for kernel, weight, direction in zip(kernels, start, own, strict=True):
            kernel.assign(weight + step * direction)
        return gradients(model, lambda: EXACT_LOSS(y, model(x) / temperature))

    own = [np.zeros_like(weight) for weight in start]
    own = gradient_at(0.0)
    step = 1e-4 * temperature
    pairs = zip(gradient_at(step), gradient_at(-step), strict=True)
    for kernel, weight, (ahead, behind) in zip(kernels, start, pairs, strict=True):
        np.testing.assert_allclose(found[kernel.path], weight * (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-12)


def test_grasp_keeps_what_the_gradient_flow_needs() -> None:
    """To first order, removing a weight changes the squared norm of the gradient by -2 * score."""
    rng = np.random.default_rng(1)
    model, x, y = smooth_model(), rng.normal(size=(8, 4)), rng.integers(0, 3, 8)
    scores = grasp_scores(model, EXACT_LOSS, x, y)

    def norm() -> float:
        return float(sum((g**2).sum() for g in gradients(model, lambda: EXACT_LOSS(y, model(x)))))

    kernel = model.layers[0].kernel
    whole, weight, changes = norm(), kernel.numpy(), np.zeros(kernel.shape)
    for place in np.ndindex(*kernel.shape):
        without = weight.copy()
        without[place] *= 1 - 1e-5
        kernel.assign(without)
        changes[place] = (norm() - whole) / 1e-5
    np.testing.assert_allclose(-2 * scores[kernel.path], changes, rtol=1e-2, atol=1e-5)


def hand_model() -> keras.Model:
    """A model with two inputs, two hidden neurons, one output, and weights that are easy to multiply by hand."""
    layers = [kl.Dense(2, name="a"), kl.ReLU(), kl.Dense(1, name="b")]
    model = keras.Sequential([keras.Input((2,)), *layers], name="hand")
    model.get_layer("a").set_weights([np.array([[1.0, -2.0], [3.0, 4.0]]), np.array([-1.0, 0.0])])
    model.get_layer("b").set_weights([np.array([[-5.0], [0.5]]), np.array([7.0])])
    return model


def test_synflow_by_hand() -> None:
    """The flow is |w| times the weight that follows in the first layer, and |w| times the input in the second."""
    flow = synflow_scores(hand_model(), np.zeros((1, 2), np.float32), 0.0, rounds=1)
    first, second = flow["hand/a/kernel"], flow["hand/b/kernel"]
    products = [np.array([[5.0, 1.0], [15.0, 2.0]]), np.array([[25.0], [3.0]])]  # |bias| of 1 comes into the first
    np.testing.assert_allclose(first, products[0], rtol=1e-12)
    np.testing.assert_allclose(second, products[1], rtol=1e-12)


def test_synflow_iterates() -> None:
    """Two rounds: the first prunes the smallest flows, and the second the connections that then carry no flow."""
    flow = synflow_scores(hand_model(), np.zeros((1, 2), np.float32), 0.5, rounds=2)
    # 4 of 6 are left after the first round (1, 2 | 3 go last): neuron 2 has lost both inputs, so its output carries 0.
    np.testing.assert_array_equal(flow["hand/a/kernel"] >= 0, [[True, False], [True, False]])
    np.testing.assert_array_equal(flow["hand/b/kernel"] >= 0, [[True], [False]])
    once = synflow_scores(hand_model(), np.zeros((1, 2), np.float32), 0.5, rounds=1)
    assert [int((scores >= 0).sum()) for scores in once.values()] == [2, 1]


def test_the_recipes_topology_is_what_synflow_left() -> None:
    model = make_model()
    scores = synflow_scores(model, make_data()[0], 0.7, rounds=7)
    optimizer = sparsify(keras.optimizers.SGD(), SynFlow(0.7), model=model, scores=scores)
    for name, mask in optimizer.masks.items():
        np.testing.assert_array_equal(mask, scores[name] >= 0)


def test_synflow_of_a_deep_model_overflows_nothing() -> None:
    """Here the sum of the outputs is about 10^60, which float32 cannot hold."""
    keras.utils.set_random_seed(0)
    near_one = keras.initializers.RandomUniform(0.5, 1.5)
    layers = [kl.Dense(64, "relu", name=f"fc{i}", kernel_initializer=near_one) for i in range(34)]
    model = keras.Sequential([keras.Input((64,)), *layers], name="deep")
    scores = synflow_scores(model, np.zeros((1, 64), np.float32), 0.5, rounds=2)
    assert all(np.isfinite(each).all() and each.max() > 0 for each in scores.values())


class OwnLayer(keras.layers.Layer):  # type: ignore[misc]
    """A layer that counts its calls, and draws random numbers in training."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        self.drop = kl.Dropout(0.5)

    def call(self, x: Any, training: bool = False) -> Any:
        self.calls.assign_add(1)
        return self.drop(x, training=training)


def convnet(policy: str = "float32") -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [
        kl.Conv2D(4, 3, name="conv", dtype=policy),
        kl.BatchNormalization(dtype=policy),
        OwnLayer(),
        kl.ReLU(dtype=policy),
        kl.Reshape((36, 4)),
        kl.GRU(6, name="rnn", dtype=policy, recurrent_initializer="glorot_uniform"),
        kl.Dense(3, name="head", dtype=policy),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers], name="net")


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16"])
def test_the_model_is_left_as_it_was(policy: str) -> None:
    """Weights, statistics, random states, counters and dtypes do not change, also after an error."""
    model, rng = convnet(policy), np.random.default_rng(0)
    x, y = rng.normal(size=(6, 8, 8, 1)).astype(np.float32), rng.integers(0, 3, 6)
    before, variables = values(model), [variable.value for variable in model.variables]
    policies = [layer.dtype_policy.name for layer in model.layers]

    def broken(*_: Any) -> Any:
        raise KeyError("loss")

    for scores in (
        grasp_scores(model, LOSS, x, y),
        synflow_scores(model, x, 0.8, rounds=3),
    ):
        assert [name.split("/", 1)[1] for name in scores] == [
            "conv/kernel",
            "rnn/gru_cell/kernel",
            "rnn/gru_cell/recurrent_kernel",
            "head/kernel",
        ]
        assert all(np.isfinite(each).all() for each in scores.values())
        assert any(each.any() for each in scores.values())
    with pytest.raises(KeyError, match="loss"):
        grasp_scores(model, broken, x, y)
    assert_same(values(model), before)
    assert all(variable.value is own for variable, own in zip(model.variables, variables, strict=True))
    assert [layer.dtype_policy.name for layer in model.layers] == policies
    assert [variable.dtype for variable in model.variables] == [own.dtype.name for own in variables]


def test_the_layers_are_those_that_sparsify_chooses() -> None:
    model = make_model()
    x, y = make_data()
    chosen = grasp_scores(model, LOSS, x, y, include=["*/fc1/bias"], exclude=["*/fc2/*"])
    assert {name: scores.shape for name, scores in chosen.items()} == {
        "net/fc1/kernel": (12, 10),
        "net/fc1/bias": (10,),
    }
    layers = [Layer("net/fc2/kernel", (10, 6))]
    assert list(grasp_scores(model, LOSS, x, y, layers=layers)) == ["net/fc2/kernel"]
    assert list(synflow_scores(model, x, 0.5, layers=layers, rounds=1)) == ["net/fc2/kernel"]


def test_a_model_that_is_pruned_by_grasp_trains() -> None:
    model = make_model()
    x, y = make_data()
    scores = grasp_scores(model, LOSS, x, y)
    optimizer = sparsify(keras.optimizers.Adam(0.01), GraSP(0.6), model=model, scores=scores)
    ordered = np.sort(np.concatenate([each.ravel() for each in scores.values()]))[::-1]
    least = ordered[sum(optimizer.plan.active) - 1]
    for name, mask in optimizer.masks.items():
        np.testing.assert_array_equal(mask, scores[name] >= least)
    masks = optimizer.masks
    for step in range(3):
        optimizer.apply(make_gradients(model.trainable_variables, step))
    assert all((optimizer.masks[name] == mask).all() for name, mask in masks.items())


WRONG: dict[str, tuple[Callable[[keras.Model, Any, Any], Any], str]] = {
    "model": (lambda _, x, y: grasp_scores("net", LOSS, x, y), r"model is a str: it must be a keras\.Model"),
    "temperature": (
        lambda model, x, y: grasp_scores(model, LOSS, x, y, temperature=0),
        "temperature is 0: it must be positive",
    ),
    "both": (
        lambda model, x, y: grasp_scores(model, LOSS, x, y, layers=[], exclude=["*"]),
        "layers already says what to sparsify",
    ),
    "missing": (
        lambda model, x, y: grasp_scores(model, LOSS, x, y, layers=[Layer("x", (2, 2))]),
        r"layers names 'x' of shape \(2, 2\)",
    ),
    "sparsity": (lambda model, x, y: synflow_scores(model, x, 1.5), r"sparsity is 1\.5: it must be in \[0, 1\)"),
    "nothing": (lambda model, x, y: synflow_scores(model, x, 0.5, exclude=["*"]), "layers is empty"),
    "rounds": (lambda model, x, y: synflow_scores(model, x, 0.5, rounds=0), "rounds is 0"),
}


@checks("P3")
@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_refused_by_name(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call(make_model(), *make_data())


def test_a_flow_that_is_not_finite_is_refused() -> None:
    model = make_model()
    model.get_layer("fc1").kernel.assign(np.full((12, 10), np.nan))
    with pytest.raises(ValueError, match="model has a flow that float64 cannot hold"):
        synflow_scores(model, make_data()[0], 0.5)
