"""RigL with a plain ``tf.Module``: its variables have names of their own, and ``include`` says which are layers."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from images import accuracy, batches, options_of, read
from rigl_backends.tf import SparseOptimizer, sparsify
from rigl_core import RigL, UpdateSchedule


class Dense(tf.Module):
    """A dense layer. TensorFlow puts the module's name before the names of its variables: give each one its own."""

    def __init__(self, inputs: int, outputs: int, name: str) -> None:
        super().__init__(name=name)
        with self.name_scope:
            self.w = tf.Variable(keras.initializers.HeNormal(seed=outputs)((inputs, outputs)), name="w")
            self.b = tf.Variable(tf.zeros(outputs), name="b")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """The layer's outputs, (batch, outputs)."""
        return x @ self.w + self.b


class Network(tf.Module):
    """An MLP with two hidden layers."""

    def __init__(self, pixels: int, classes: int) -> None:
        super().__init__(name="mlp")
        with self.name_scope:
            self.hidden1 = Dense(pixels, 128, "hidden1")
            self.hidden2 = Dense(128, 64, "hidden2")
            self.out = Dense(64, classes, "out")

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Logits, (batch, classes)."""
        return self.out(tf.nn.relu(self.hidden2(tf.nn.relu(self.hidden1(images)))))


def train(network: tf.Module, optimizer: SparseOptimizer, data: object, steps: int) -> None:
    """A custom loop; it is the same without RigL."""

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, network(images))
            loss = tf.reduce_mean(losses)
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    for images, labels in batches(data, steps):
        step(tf.constant(images), tf.constant(labels))


def main(arguments: Sequence[str] | None = None) -> SparseOptimizer:
    """Train, and print the test accuracy and the density of each layer."""
    options, data = read(options_of(__doc__), arguments)
    network = Network(data.train_images.shape[1], data.n_classes)
    recipe = RigL(0.9, schedule=UpdateSchedule.for_training(options.steps, every=20))
    axes = {"*/w": ((0,), (1,))}
    optimizer = sparsify(keras.optimizers.Adam(3e-3), recipe, include=["*/w"], axes=axes)
    optimizer.build(network.trainable_variables)  # now the weights become sparse
    train(network, optimizer, data, options.steps)
    print(f"test accuracy {accuracy(network(data.test_images), data.test_labels):.3f}")
    print(optimizer.table)
    return optimizer


if __name__ == "__main__":
    main()
