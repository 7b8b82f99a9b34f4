"""`describe`: its positions, read from the graph, are those of `rigl_core.specs` for published networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from rigl_backends.tf import choose_layers, describe
from rigl_core import Network, Static, cost_table, make_plan, specs
from rigl_core.testing.checks import checks
from tests.architectures import BATCH, EXPECTED, TOKENS, shapes_and_positions, summary


class Tied(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = kl.Embedding(11, 8)
        self.layer = kl.Dense(8)

    def call(self, tokens: Any) -> Any:
        return tf.matmul(self.layer(self.embedding(tokens)), self.embedding.embeddings, transpose_b=True)


def attention() -> keras.Model:
    inputs = keras.Input((TOKENS, 8))
    return keras.Model(inputs, kl.Dense(2)(kl.MultiHeadAttention(2, 4)(inputs, inputs)))


def convnet() -> keras.Model:
    return keras.Sequential(
        [
            kl.Conv2D(8, 3, strides=2, padding="same"),
            kl.BatchNormalization(),
            kl.DepthwiseConv2D(3, name="depthwise"),
            kl.ReLU(),
            kl.Conv2D(16, 3, groups=4),
            kl.Conv2DTranspose(6, 3, strides=2),
            kl.GlobalAveragePooling2D(),
            kl.Dense(3),
        ]
    )


ARCHITECTURES: dict[str, Callable[[], tuple[keras.Model, Any]]] = {
    "mlp": lambda: (keras.Sequential([kl.Dense(16, "relu"), kl.Dense(6)]), np.zeros((BATCH, 12), np.float32)),
    "convnet": lambda: (convnet(), tf.zeros((BATCH, 32, 32, 3))),
    "recurrent": lambda: (keras.Sequential([kl.GRU(6), kl.Dense(2)]), tf.zeros((BATCH, TOKENS, 8))),
    "attention": lambda: (attention(), tf.zeros((BATCH, TOKENS, 8))),
    "tied": lambda: (Tied(), tf.zeros((BATCH, TOKENS), tf.int32)),
}


def by_name(network: Network) -> dict[str, float]:
    """Positions by the last two parts of the names, which are the layer and the variable."""
    return {"/".join(name.split("/")[-2:]): positions for name, positions in network.positions.items()}


@pytest.mark.parametrize("name", EXPECTED)
def test_architectures(name: str) -> None:
    model, inputs = ARCHITECTURES[name]()
    assert summary(describe(model, inputs, examples=BATCH)) == EXPECTED[name]


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("cell", [kl.GRU, kl.LSTM, kl.SimpleRNN])
def test_recurrent_layers_are_used_at_every_step(cell: Any, unroll: bool) -> None:
    model = keras.Sequential([kl.Bidirectional(cell(6, unroll=unroll, return_sequences=True)), cell(4, unroll=unroll)])
    network = describe(model, tf.zeros((3, 7, 8)), examples=3)
    assert len(network) == 6
    assert set(network.positions.values()) == {7}


def test_masks_and_cells_of_ones_own() -> None:
    model = keras.Sequential([kl.Embedding(9, 4, mask_zero=True), kl.RNN([kl.LSTMCell(4), kl.GRUCell(3)]), kl.Dense(2)])
    network = describe(model, tf.ones((3, 7), tf.int32), examples=3)
    assert summary(network) == ({7: 2 * 4 * 16 + 4 * 9 + 3 * 9, 1: 6}, {0: 36})


CONVOLUTIONS = {
    "conv1d": (lambda: kl.Conv1D(6, 3, strides=2, padding="causal"), (17, 4), 9),
    "dilated": (lambda: kl.Conv2D(6, 3, dilation_rate=2), (9, 12, 4), 5 * 8),
    "grouped": (lambda: kl.Conv1D(6, 3, groups=2), (9, 4), 7),
    "conv3d": (lambda: kl.Conv3D(3, 3, padding="same", use_bias=False), (5, 6, 4, 2), 120),
    "transposed 1d": (lambda: kl.Conv1DTranspose(6, 4, strides=2), (9, 4), 9),
    "transposed 2d": (lambda: kl.Conv2DTranspose(6, 3, strides=3, padding="same"), (5, 6, 4), 30),
    "transposed 3d": (lambda: kl.Conv3DTranspose(4, 2, strides=2), (3, 4, 5, 2), 60),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    layer, shape, positions = CONVOLUTIONS[name]
    network = describe(keras.Sequential([layer()]), tf.zeros((3, *shape)), examples=3)
    assert list(network.positions.values()) == [positions]


def test_separable_convolutions_have_a_dense_and_a_sparse_kernel() -> None:
    network = describe(keras.Sequential([kl.SeparableConv2D(5, 3, strides=2)]), tf.zeros((3, 9, 9, 4)), examples=3)
    assert summary(network) == ({16: 4 * 5}, {16: 9 * 4})


EQUATIONS = [
    ("abc,cd->abd", (TOKENS, 8), TOKENS),
    ("...x,xy->...y", (TOKENS, 8), TOKENS),
    ("abc,cde->abde", (None, 2, 3), TOKENS),
    ("abc,bcd->abd", (TOKENS, 4), 1),
    ("abc,bcd->ad", (4,), 1),
]


@pytest.mark.parametrize(("equation", "output_shape", "positions"), EQUATIONS)
def test_einsum_layers(equation: str, output_shape: tuple[int, ...], positions: int) -> None:
    layer = kl.EinsumDense(equation, output_shape=output_shape)
    network = describe(keras.Sequential([layer]), tf.zeros((BATCH, TOKENS, 8)), examples=BATCH)
    assert by_name(network) == {f"{layer.name}/kernel": positions}


def test_queries_and_keys_of_different_lengths() -> None:
    queries, keys = keras.Input((3, 8)), keras.Input((TOKENS, 8))
    model = keras.Model([queries, keys], kl.MultiHeadAttention(2, 4)(queries, keys))
    network = describe(model, [tf.zeros((BATCH, 3, 8)), tf.zeros((BATCH, TOKENS, 8))], examples=BATCH)
    expected = {"query/kernel": 3, "key/kernel": TOKENS, "value/kernel": TOKENS, "attention_output/kernel": 3}
    assert by_name(network) == expected


class Custom(keras.Model):
    """A model with its own products. Its weights are masked, joined, shared, and used in branches and loops."""

    def __init__(self) -> None:
        super().__init__(name="custom")
        shapes = {"masked": (8, 6), "a": (8, 5), "b": (8, 3), "rare": (8, 3), "looped": (8, 8), "queries": (2, 8)}
        self.own = {name: self.add_weight(shape=shape, name=name) for name, shape in shapes.items()}
        self.shared = kl.Dense(8, name="shared")

    def call(self, x: Any) -> Any:
        own = {name: tf.convert_to_tensor(weight) for name, weight in self.own.items()}
        masked = tf.cast(own["masked"] * tf.ones((8, 6)), tf.bfloat16)
        joined = tf.concat([own["a"], own["b"]], 1)
        rare = tf.cond(x[0, 0] > 0, lambda: x @ own["rare"], lambda: x[:, :3])
        looped = tf.while_loop(
            lambda i, _: i < 4, lambda i, x: (i + 1, x @ own["looped"]), (0, x), maximum_iterations=4
        )[1]
        asked = self.shared(own["queries"])
        parts = (tf.cast(x, tf.bfloat16) @ masked, x @ joined, rare, looped, self.shared(self.shared(x)), asked)
        return sum(tf.reduce_sum(tf.cast(part, tf.float32)) for part in parts)


def test_layers_of_ones_own_are_counted_by_their_products() -> None:
    network = describe(Custom(), tf.ones((TOKENS, 8)), include=["custom/*"])
    expected = {"masked": 5, "a": 5, "b": 5, "rare": 5, "looped": 20, "queries": 0, "kernel": 12}
    assert {name.split("/")[-1]: n for name, n in network.positions.items() if "bias" not in name} == expected


@checks("P3")
def test_a_loop_of_unknown_length_is_refused_by_name() -> None:
    class Loop(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kl.Dense(4, name="layer")
            self.layer.build((None, 4))
            self.built = True

        def call(self, x: Any) -> Any:
            return tf.while_loop(lambda x: tf.reduce_sum(x) < 3, lambda x: [self.layer(x) + 1], [x])[0]

    with pytest.raises(ValueError, match="model multiplies with 'layer/kernel' in a while loop"):
        describe(Loop(), tf.zeros((1, 4)))


def test_mixed_precision_changes_nothing() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, inputs = ARCHITECTURES["convnet"]()
    finally:
        keras.config.set_dtype_policy("float32")
    assert summary(describe(model, inputs, examples=BATCH)) == EXPECTED["convnet"]


def test_frozen_layers_cost_but_stay_dense() -> None:
    model = keras.Sequential([kl.Dense(16), kl.Dense(6)])
    model.build((None, 12))
    model.layers[0].trainable = False
    assert summary(describe(model, tf.zeros((BATCH, 12)), examples=BATCH)) == ({1: 96}, {1: 192})


def test_the_model_is_left_as_it_was() -> None:
    model, inputs = ARCHITECTURES["convnet"]()
    model.build(inputs.shape)
    before = [variable.numpy() for variable in model.variables]
    describe(model, inputs, examples=BATCH)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_the_layers_are_those_that_sparsify_chooses() -> None:
    model, inputs = ARCHITECTURES["convnet"]()
    choice: dict[str, Any] = {"include": ["*/depthwise/kernel"], "exclude": ["*/dense*"]}
    model.build(inputs.shape)
    network = describe(model, inputs, examples=BATCH, **choice)
    assert network.layers == tuple(choose_layers(model, **choice))
    assert summary(network) == ({256: 216, 196: 72, 144: 9 * 2 * 16 + 9 * 16 * 6}, {1: 18})


def test_named_inputs() -> None:
    layer, x = kl.MultiHeadAttention(2, 4), tf.zeros((BATCH, TOKENS, 8))
    network = describe(layer, x, named_inputs={"value": x}, examples=BATCH)
    assert summary(network) == ({TOKENS: 4 * 64}, {})


@checks("P3")
def test_mistakes_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"model is a list: it must be a keras\.Model\."):
        describe([], tf.ones(1))
    with pytest.raises(ValueError, match="examples is 0: it must be at least 1"):
        describe(keras.Sequential([kl.Dense(3)]), tf.ones((2, 3)), examples=0)


@pytest.mark.parametrize(
    ("build", "published"),
    [
        (keras.applications.MobileNet, specs.mobilenet_v1()),
        (keras.applications.MobileNetV2, specs.mobilenet_v2()),
    ],
    ids=["v1", "v2"],
)
def test_keras_mobilenets_are_the_published_ones(build: Any, published: Network) -> None:
    network = describe(build(weights=None), tf.zeros((1, 224, 224, 3)))
    assert shapes_and_positions(network) == shapes_and_positions(published)
    assert sum(layer.size for layer in network.always_dense) == sum(layer.size for layer in published.always_dense)
    table, expected = (cost_table(make_plan(Static(0.9), each), each) for each in (network, published))
    assert table.f_d == expected.f_d
