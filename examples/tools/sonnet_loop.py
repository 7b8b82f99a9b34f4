"""RigL with Sonnet: its modules, a Keras optimizer, and ``include`` for the weights, which Sonnet calls ``w``."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import sonnet as snt
import tensorflow as tf

from images import accuracy, options_of, read
from rigl_backends.tf import SparseOptimizer, sparsify
from rigl_core import RigL, UpdateSchedule
from tf_module_loop import train


def main(arguments: Sequence[str] | None = None) -> SparseOptimizer:
    """Train, and print the test accuracy and the density of each layer."""
    options, data = read(options_of(__doc__), arguments)
    tf.random.set_seed(0)
    network = snt.nets.MLP([128, 64, data.n_classes], name="mlp")
    network(tf.constant(data.train_images[:1]))  # Sonnet makes its variables now
    recipe = RigL(0.9, schedule=UpdateSchedule.for_training(options.steps, every=20))
    axes = {"*/w": ((0,), (1,))}
    optimizer = sparsify(keras.optimizers.Adam(3e-3), recipe, include=["*/w"], axes=axes)
    optimizer.build(network.trainable_variables)  # now the weights become sparse
    train(network, optimizer, data, options.steps)
    print(f"test accuracy {accuracy(network(tf.constant(data.test_images)), data.test_labels):.3f}")
    print(optimizer.table)
    return optimizer


if __name__ == "__main__":
    main()
