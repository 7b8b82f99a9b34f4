"""The choice of layers among variables, their axes, and the optimizer variables that belong to them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from rigl_backends.keras_common.state import state_of
from rigl_backends.tf import choose_layers
from rigl_core import Layer


def build(layer: kl.Layer, *input_shape: int) -> kl.Layer:
    layer(np.zeros((2, *input_shape), np.float32))
    return layer


def chosen(layer: kl.Layer, **options: Any) -> dict[str, Layer]:
    """The chosen layers by variable name, without the name of the Keras layer."""
    layers = choose_layers(layer, **options)
    return {found.name.removeprefix(f"{layer.name}/"): found for found in layers}


CASES: list[tuple[kl.Layer, tuple[int, ...], dict[str, tuple[int, int]]]] = [
    (kl.Dense(5), (3,), {"kernel": (0, 1)}),
    (kl.EinsumDense("abc,cde->abde", (None, 4, 6)), (5, 3), {"kernel": (0, 1)}),
    (kl.EinsumDense("...x,yx->...y", (4,)), (3,), {"kernel": (1, 0)}),
    (kl.Conv1D(4, 3), (8, 2), {"kernel": (1, 2)}),
    (kl.Conv2D(4, 3), (8, 8, 2), {"kernel": (2, 3)}),
    (kl.Conv3D(4, 2), (4, 4, 4, 2), {"kernel": (3, 4)}),
    (kl.Conv1DTranspose(4, 3), (8, 2), {"kernel": (2, 1)}),
    (kl.Conv2DTranspose(4, 3), (8, 8, 2), {"kernel": (3, 2)}),
    (kl.Conv3DTranspose(4, 2), (4, 4, 4, 2), {"kernel": (4, 3)}),
    (kl.SeparableConv2D(4, 3), (8, 8, 2), {"pointwise_kernel": (2, 3)}),
    (kl.DepthwiseConv1D(3), (8, 2), {}),
    (kl.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 2), {}),
    (kl.LSTM(4), (5, 2), {"lstm_cell/kernel": (0, 1), "lstm_cell/recurrent_kernel": (0, 1)}),
    (kl.GRU(4), (5, 2), {"gru_cell/kernel": (0, 1), "gru_cell/recurrent_kernel": (0, 1)}),
    (kl.SimpleRNN(4), (5, 2), {"simple_rnn_cell/kernel": (0, 1), "simple_rnn_cell/recurrent_kernel": (0, 1)}),
    (kl.Embedding(9, 4), (5,), {}),
    (kl.LayerNormalization(), (5,), {}),
    (kl.BatchNormalization(), (5,), {}),
]


@pytest.mark.parametrize(("layer", "shape", "expected"), CASES, ids=lambda x: getattr(x, "name", None))
def test_the_layers_of_a_model(layer: kl.Layer, shape: tuple[int, ...], expected: dict[str, tuple[int, int]]) -> None:
    found = chosen(build(layer, *shape))
    assert {name: (*known.in_axes[:1], *known.out_axes[:1]) for name, known in found.items()} == expected


@pytest.mark.parametrize(("layer", "shape", "expected"), CASES, ids=lambda x: getattr(x, "name", None))
def test_paths_tell_the_same_under_the_names_that_keras_gives(
    layer: kl.Layer, shape: tuple[int, ...], expected: dict[str, tuple[int, int]]
) -> None:
    variables = build(layer, *shape).trainable_variables
    exact, by_path = choose_layers(layer), choose_layers(variables)
    assert [known.name for known in by_path] == [known.name for known in exact]
    for path, model in zip(by_path, exact, strict=True):
        assert path.in_axes in (model.in_axes, ())
        assert path.out_axes in (model.out_axes, ())


def test_several_in_and_out_axes() -> None:
    found = chosen(build(kl.EinsumDense("abc,bcde->ade", (4, 6)), 5, 3))["kernel"]
    assert (found.in_axes, found.out_axes, found.n_in, found.n_out) == ((0, 1), (2, 3), 15, 24)


def test_attention_and_bidirectional_layers() -> None:
    x = keras.Input((5, 8))
    attended = kl.MultiHeadAttention(2, 4, name="attn")(x, x)
    model = keras.Model(x, kl.Bidirectional(kl.LSTM(4, return_sequences=True, name="rnn"), name="both")(attended))
    expected = {f"attn/{name}/kernel" for name in ("query", "key", "value", "attention_output")}
    for way in ("forward", "backward"):
        expected |= {f"both/{way}_rnn/lstm_cell/{kernel}" for kernel in ("kernel", "recurrent_kernel")}
    for layers in (choose_layers(model.trainable_variables), choose_layers(model)):
        assert {layer.name for layer in layers} == expected


def test_grouped_and_depthwise_kernels() -> None:
    grouped = chosen(build(kl.Conv2D(6, 3, groups=2), 8, 8, 4))["kernel"]
    assert (grouped.groups, grouped.depthwise, grouped.fan_in, grouped.fan_out) == (2, False, 18, 27)
    assert chosen(build(kl.Conv2D(4, 3, groups=4), 8, 8, 4)) == {}
    depthwise = chosen(build(kl.DepthwiseConv2D(3, depth_multiplier=2), 8, 8, 4), include=["*kernel"])["kernel"]
    assert (depthwise.groups, depthwise.depthwise, depthwise.fan_in, depthwise.fan_out) == (4, True, 9, 18)


def test_include_and_exclude() -> None:
    model = keras.Sequential([keras.Input((5,)), kl.Embedding(9, 4, name="words"), kl.Dense(3, name="head")], name="m")
    names = [layer.name for layer in choose_layers(model, ["*embeddings"], ["*/head/*"])]
    assert names == ["m/words/embeddings"]
    assert choose_layers(model, ["*embeddings"])[0].n_in == 9


def test_a_path_that_does_not_tell_a_depthwise_kernel() -> None:
    layers = [build(kl.Conv2D(4, 3, name="conv_1"), 8, 8, 4), build(kl.DepthwiseConv2D(3, name="conv_dw_1"), 8, 8, 4)]
    for layer in layers:
        with pytest.raises(ValueError, match=rf"layer '{layer.name}/kernel' .*does not tell.*model=model"):
            choose_layers(layer.trainable_variables)
        assert [found.name for found in choose_layers(layer.trainable_variables, ["*/kernel"])] == [
            f"{layer.name}/kernel"
        ]
        assert choose_layers(layer.trainable_variables, (), ["*/kernel"]) == []


def test_patterns_that_match_nothing() -> None:
    variables = build(kl.Dense(3, name="head"), 4).trainable_variables
    with pytest.raises(ValueError, match=r"exclude holds the pattern 'fc', which matches no layer.*'head/kernel'"):
        choose_layers(variables, (), ["fc"])
    with pytest.raises(TypeError, match="include is the string 'head'"):
        choose_layers(variables, "head")


def test_frozen_layers_are_not_trained_and_not_chosen() -> None:
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, name="a"), kl.Dense(3, name="b")], name="m")
    model.get_layer("a").trainable = False
    assert [layer.name for layer in choose_layers(model)] == ["m/b/kernel"]


def test_plain_variables_go_by_their_names() -> None:
    variables = [tf.Variable(tf.ones((3, 2)), name="fc/kernel"), tf.Variable(tf.ones((3, 2)), name="table")]
    assert [layer.name for layer in choose_layers(variables)] == ["fc/kernel"]
    assert [layer.name for layer in choose_layers(variables, ["table"])] == ["fc/kernel", "table"]


def test_state_goes_to_the_weights_it_was_made_for() -> None:
    """Some names have a common beginning. Others become equal when Keras replaces the slashes."""
    names = ["a", "a_kernel", "a_kernel", "b"]
    variables = [keras.Variable(np.ones((2, 3), np.float32), name=name) for name in names]
    optimizer = keras.optimizers.Adam(use_ema=True, gradient_accumulation_steps=2)
    optimizer.build(variables)
    own = [optimizer._momentums, optimizer._velocities, optimizer._accumulated_gradients]
    own.append(optimizer._model_variables_moving_average)
    for i, found in enumerate(state_of(optimizer, variables)):
        assert {id(x) for x in found} == {id(kind[i]) for kind in own}
