"""Ordinary steps in TensorFlow: Keras models in a tf.function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from contenders.recipes import moving_later
from rigl_backends.tf import sparsify


class TensorFlowSteps:
    """See `contenders.protocol.Steps`."""

    def __init__(self, model: str, optimizer: str) -> None:
        tf.config.experimental.set_synchronous_execution(True)  # a step is over when it returns
        self.dense = _step(model, optimizer, sparse=False)
        self.sparse = _step(model, optimizer, sparse=True)


make = TensorFlowSteps


def make_model(kind: str) -> keras.Model:
    """The models of `contenders.torch_models`."""
    if kind == "mlp":
        inside = [layers.Dense(1024, "relu") for _ in range(2)]
        return keras.Sequential([keras.Input((784,), 128), *inside, layers.Dense(10)])
    if kind == "convnet":
        sizes = ((32, 1), (64, 2), (128, 2))
        inside = [layers.Conv2D(width, 3, stride, padding="same", activation="relu") for width, stride in sizes]
        return keras.Sequential([keras.Input((32, 32, 3), 64), *inside, layers.Flatten(), layers.Dense(10)])
    if kind == "gru":
        return keras.Sequential([keras.Input((32, 64), 32), layers.GRU(256), layers.Dense(10)])
    x = inputs = keras.Input((64, 128), 16)
    for _ in range(2):
        normal = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 32)(normal, normal)
        x = x + layers.Dense(128)(layers.Dense(512, "relu")(layers.LayerNormalization()(x)))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def _step(kind: str, optimizer: str, *, sparse: bool) -> Callable[[], None]:
    keras.utils.set_random_seed(0)
    model = make_model(kind)
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.standard_normal(model.input_shape, dtype=np.float32))
    labels = tf.constant(rng.integers(10, size=len(inputs)))
    stepper: Any = keras.optimizers.SGD(1e-3, momentum=0.9) if optimizer == "momentum" else keras.optimizers.Adam(1e-4)
    if sparse:
        stepper = sparsify(stepper, moving_later(), model=model)
    stepper.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(inputs, training=True))
        stepper.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    return step
