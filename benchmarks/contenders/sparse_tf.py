"""The products of one layer of Keras in a ``tf.function``, forward and backward: truly sparse, or dense."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rigl_backends.tf import sparsify
from rigl_core import SparsityWarning, Static, Uniform

Act = Callable[[], object]


def make(contender: str, baseline: str, layer: Mapping[str, Any]) -> tuple[Act, Act]:
    """What is measured, and the dense layer.

    Args:
        contender: ``"tf active"`` for as many outputs as inputs; or ``"tf convolution 256 128 3 14"``: inputs, outputs,
            the side of the kernel and that of the planes.
        baseline: ``"tf dense"``.
        layer: size, batch, density and threads.
    """
    if layer["threads"] == 1:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.set_synchronous_execution(True)  # a call is over when it returns
    kind, *numbers = contender.split()[1:]
    if kind == "convolution":
        inputs, outputs, kernel, side = map(int, numbers)
        shape: tuple[int, ...] = (side, side, inputs)
        pair = [keras.layers.Conv2D(outputs, kernel, padding="same", name="layer") for _ in range(2)]
    else:
        shape = (layer["size"],)
        pair = [keras.layers.Dense(layer["size"], name="layer") for _ in range(2)]
    sparse, dense = (keras.Sequential([keras.Input(shape), own]) for own in pair)
    _make_sparse(sparse, layer["density"])
    random = np.random.default_rng(0)
    x = tf.constant(random.standard_normal((layer["batch"], *shape), np.float32))
    dy = tf.constant(random.standard_normal(dense(x).shape, np.float32))
    return _gradients(sparse, x, dy), _gradients(dense, x, dy)


def _make_sparse(model: Any, density: float) -> None:
    recipe = Static(1 - density, distribution=Uniform(first_dense=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsityWarning)
        sparsify(keras.optimizers.SGD(), recipe, model=model, storage={"*": "active"})


def _gradients(model: Any, x: tf.Tensor, dy: tf.Tensor) -> Act:
    @tf.function  # type: ignore[untyped-decorator]
    def gradients(x: tf.Tensor, dy: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x)
        return tape.gradient(y, [x, *model.trainable_variables], dy)

    return lambda: gradients(x, dy)
