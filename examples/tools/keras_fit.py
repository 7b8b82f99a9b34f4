"""RigL in Keras ``fit``: one line for the optimizer, and a callback that writes the topology to CSV and TensorBoard."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras

from images import BATCH, accuracy, options_of, read
from rigl_backends.tf import SparseOptimizer, TopologyLog, sparsify
from rigl_core import RigL, UpdateSchedule


def main(arguments: Sequence[str] | None = None) -> SparseOptimizer:
    """Train, and print the test accuracy, the log and the density of each layer."""
    parser = options_of(__doc__)
    parser.add_argument(
        "--log", type=Path, metavar="FOLDER", help="where the logs go (a new folder in the temporary one)"
    )
    options, data = read(parser, arguments)
    folder = options.log or Path(tempfile.mkdtemp(prefix="keras_fit_"))
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(128, "relu", name="hidden1"), keras.layers.Dense(64, "relu", name="hidden2")]
    layers = [keras.Input((data.train_images.shape[1],)), *layers, keras.layers.Dense(data.n_classes, name="out")]
    model = keras.Sequential(layers, name="mlp")
    recipe = RigL(0.9, schedule=UpdateSchedule.for_training(options.steps, every=20))
    optimizer = sparsify(keras.optimizers.Adam(3e-3), recipe, model=model)  # the line that makes it sparse
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    logs = [
        TopologyLog(),  # before those that write what it adds
        keras.callbacks.CSVLogger(folder / "log.csv"),
        keras.callbacks.TensorBoard(folder, write_graph=False),  # then: tensorboard --logdir FOLDER
    ]
    images, labels = data.train_images, data.train_labels
    epochs = max(1, options.steps // -(-len(images) // BATCH))
    model.fit(images, labels, batch_size=BATCH, epochs=epochs, callbacks=logs, verbose=0)
    print(f"test accuracy {accuracy(model.predict(data.test_images, verbose=0), data.test_labels):.3f}")
    print((folder / "log.csv").read_text(encoding="utf-8").strip())
    print(optimizer.table)
    return optimizer


if __name__ == "__main__":
    main()
