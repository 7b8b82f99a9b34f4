"""An update in TensorFlow, in a tf.function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from contenders.recipes import always_moving, layers_of
from rigl_backends.tf import sparsify
from subjects import Kernels, weights_like


class Update:
    """See `contenders.protocol.Update`. ``dense`` makes the optimizer's step alone; ``xla`` compiles it with XLA."""

    def __init__(self, kernels: Kernels, *, dense: bool = False, xla: bool = False) -> None:
        tf.config.experimental.set_synchronous_execution(True)  # a step is over when it returns
        self.traces = 0
        gradients = kernels.gradients()
        self._variables = {name: _variable(name, weights_like(gradient)) for name, gradient in gradients.items()}
        self._gradients = {name: tf.constant(gradient) for name, gradient in gradients.items()}
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9 * kernels.momentum)
        if not dense:
            optimizer = sparsify(optimizer, always_moving(), layers=layers_of(kernels))
        optimizer.build(list(self._variables.values()))
        self._optimizer = optimizer

        @tf.function(jit_compile=xla)
        def step(gradients: list[Any]) -> None:
            self.traces += 1
            optimizer.apply(gradients, list(self._variables.values()))

        self._step = step

    def prepare(self) -> None:
        for name, mask in self.masks().items():
            weights, gradient = self._variables[name].value, self._gradients[name]
            new = tf.reshape(tf.reverse(tf.reshape(gradient, [-1]), [0]), gradient.shape)  # as subjects.weights_like
            weights.assign_add(tf.where(mask, new - weights, 0))  # where they lie, as an optimizer does

    def move(self) -> None:
        self._step(list(self._gradients.values()))

    def masks(self) -> Mapping[str, npt.NDArray[np.bool_]]:
        return {name.split("/")[-1]: mask for name, mask in self._optimizer.masks.items()}

    def copies(self) -> object:
        return [gradient + 0 for gradient in self._gradients.values()]


def _variable(name: str, values: npt.NDArray[np.float32]) -> keras.Variable:
    return keras.Variable(values, name=name, dtype="float32")
