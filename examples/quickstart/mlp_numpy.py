"""The quickstart in NumPy alone: forward and backward passes by hand, plus one line."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from data import Batch, Images, Labels
from history import History, Mask, Watch
from rigl_backends.numpy import SGD, sparsify
from runs import Run

Array = npt.NDArray[np.float32]


def train(run: Run, batches: Iterable[Batch]) -> History:
    """Train the network of ``run``."""
    params = {name: array.copy() for name, array in run.weights.items()}
    optimizer = SGD(params, lr=run.learning_rate, momentum=run.momentum)
    # The one line that makes it sparse; dense training has no recipe.
    sparse = sparsify(params, optimizer, run.recipe, layers=run.layers, scores=run.scores) if run.recipe else None

    def predict(images: Images) -> Labels:
        labels: Labels = forward(params, images)[-1].argmax(axis=1)
        return labels

    def masks() -> dict[str, Mask]:
        return sparse.masks if sparse else {}

    watch = Watch(run, predict, masks, lambda: {name: array.copy() for name, array in params.items()})
    for images, labels in batches:
        optimizer.step(gradients(params, images, labels))
        watch.step_done()
    return watch.history


def forward(params: dict[str, Array], images: Array) -> tuple[Array, Array, Array]:
    """Both hidden layers after ReLU, (batch, units), and the logits, (batch, classes)."""
    hidden1 = np.maximum(images @ params["fc1.weight"].T + params["fc1.bias"], 0)
    hidden2 = np.maximum(hidden1 @ params["fc2.weight"].T + params["fc2.bias"], 0)
    return hidden1, hidden2, hidden2 @ params["fc3.weight"].T + params["fc3.bias"]


def gradients(params: dict[str, Array], images: Array, labels: Labels) -> dict[str, Array]:
    """The gradient of the mean softmax cross-entropy, by name."""
    hidden1, hidden2, logits = forward(params, images)
    towards_logits = softmax(logits)
    towards_logits[np.arange(len(labels)), labels] -= 1
    towards_logits /= len(labels)
    towards_hidden2 = towards_logits @ params["fc3.weight"] * (hidden2 > 0)
    towards_hidden1 = towards_hidden2 @ params["fc2.weight"] * (hidden1 > 0)
    return {
        "fc1.weight": towards_hidden1.T @ images,
        "fc1.bias": towards_hidden1.sum(axis=0),
        "fc2.weight": towards_hidden2.T @ hidden1,
        "fc2.bias": towards_hidden2.sum(axis=0),
        "fc3.weight": towards_logits.T @ hidden2,
        "fc3.bias": towards_logits.sum(axis=0),
    }


def softmax(logits: Array) -> Array:
    """Class probabilities, row by row. The largest logit is subtracted first, so that exp cannot overflow."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares
