"""The quickstart in TensorFlow: a Keras model and a compiled training loop, plus one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from data import Batch, Images, Labels
from history import History, Mask, Watch
from rigl_backends.tf import sparsify
from runs import Arrays, Run


def make_model(run: Run) -> keras.Model:
    """Three dense layers with ReLU between them; Keras stores its kernels as (in, out)."""
    widths = [layer.n_out for layer in run.layers]
    model = keras.Sequential(
        [
            keras.Input((run.layers[0].n_in,)),
            keras.layers.Dense(widths[0], activation="relu", name="fc1"),
            keras.layers.Dense(widths[1], activation="relu", name="fc2"),
            keras.layers.Dense(widths[2], name="fc3"),
        ],
        name="mlp",
    )
    for layer in model.layers:
        layer.set_weights([run.weights[f"{layer.name}.weight"].T, run.weights[f"{layer.name}.bias"]])
    return model


def by_path(arrays: Arrays | None) -> dict[str, Any] | None:
    """Arrays of layers, with Keras's names and in its axis order."""
    return None if arrays is None else {f"mlp/{name.split('.')[0]}/kernel": array.T for name, array in arrays.items()}


def train(run: Run, batches: Iterable[Batch]) -> History:
    """Train the network of ``run``."""
    model = make_model(run)
    optimizer = keras.optimizers.SGD(run.learning_rate, momentum=run.momentum)
    if run.recipe:  # the one line that makes it sparse; dense training has no recipe
        optimizer = sparsify(optimizer, run.recipe, model=model, scores=by_path(run.scores))
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def predict(images: Images) -> Labels:
        labels: Labels = tf.argmax(model(images), axis=1).numpy()
        return labels

    def masks() -> dict[str, Mask]:
        kernels = optimizer.masks if run.recipe else {}  # by path, such as mlp/fc1/kernel
        return {f"{path.split('/')[-2]}.weight": mask.T for path, mask in kernels.items()}

    def weights() -> Arrays:
        arrays = {}
        for layer in model.layers:
            kernel, bias = layer.get_weights()
            arrays |= {f"{layer.name}.weight": kernel.T, f"{layer.name}.bias": bias}
        return arrays

    watch = Watch(run, predict, masks, weights)
    for images, labels in batches:
        step(tf.constant(images), tf.constant(labels))
        watch.step_done()
    return watch.history
