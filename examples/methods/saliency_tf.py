"""GraSP and SynFlow scores of the quickstart's network, in TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlp_tf import make_model
from rigl_backends.tf import grasp_scores, synflow_scores
from runs import Arrays, Run


def grasp(run: Run, sparsity: float) -> Arrays:
    """GraSP scores by layer name, from the first batch."""
    images, labels = next(run.batches())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return _by_layer(grasp_scores(make_model(run), loss, tf.constant(images), tf.constant(labels)))


def synflow(run: Run, sparsity: float) -> Arrays:
    """SynFlow scores by layer name, from an image of ones."""
    return _by_layer(synflow_scores(make_model(run), tf.ones((1, run.layers[0].n_in)), sparsity))


def _by_layer(scores: dict[str, Any]) -> Arrays:
    """The scores with the names and shapes of ``run.layers``, (out, in). Keras stores kernels as (in, out)."""
    return {f"{path.split('/')[-2]}.weight": np.asarray(array).T for path, array in scores.items()}
