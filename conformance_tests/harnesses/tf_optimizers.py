"""Keras's optimizers with the formulas that the suite asks for."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rigl_core.testing.harness import OptimizerSpec, Setup


class SGD(keras.optimizers.SGD):  # type: ignore[misc]
    """With PyTorch's weight decay, which Keras leaves to the loss, and gradient centralization."""

    def __init__(self, spec: OptimizerSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": self.spec}

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        gradient = gradient - tf.reduce_mean(gradient) if self.spec.centered else gradient
        super().update_step(gradient + self.spec.weight_decay * variable, variable, learning_rate)


class Adam(keras.optimizers.AdamW):  # type: ignore[misc]
    """With PyTorch's epsilon, which Keras adds before it corrects the bias."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        correction = 1 - self.beta_2 ** tf.cast(self.iterations + 1, variable.dtype)
        self.epsilon = 1e-8 * tf.sqrt(correction)
        super().update_step(gradient, variable, learning_rate)


def make_optimizer(setup: Setup) -> keras.optimizers.Optimizer:
    """The optimizer of a case."""
    spec, calls = setup.optimizer, setup.micro_batches
    # Keras takes Python's numbers for float32, and NumPy's for what they are.
    beta_1, beta_2, momentum = np.float64(0.9), np.float64(0.999), np.float64(spec.momentum)
    common = {"learning_rate": lambda: tf.constant(spec.lr, tf.float64), "global_clipnorm": spec.clip_norm}
    common["gradient_accumulation_steps"] = calls if calls > 1 else None
    if spec.kind == "sgd":
        return SGD(spec, momentum=momentum, **common)
    if spec.kind == "adagrad":
        return keras.optimizers.Adagrad(initial_accumulator_value=0.1, **common)
    return Adam(weight_decay=np.float64(spec.weight_decay), beta_1=beta_1, beta_2=beta_2, **common)
