"""GraSP and SynFlow scores of the quickstart's network, in JAX."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mlp_jax import forward, loss_of
from rigl_backends.jax import grasp_scores, synflow_scores
from runs import Arrays, Run


def grasp(run: Run, sparsity: float) -> Arrays:
    """GraSP scores by layer name, from the first batch."""
    images, labels = map(jnp.asarray, next(run.batches()))
    params = {name: jnp.asarray(array) for name, array in run.weights.items()}
    scores = grasp_scores(lambda params: loss_of(params, images, labels), params, layers=run.layers)
    return {name: np.asarray(array) for name, array in scores.items()}


def synflow(run: Run, sparsity: float) -> Arrays:
    """SynFlow scores by layer name, from an image of ones."""
    params = {name: jnp.asarray(array) for name, array in run.weights.items()}
    return synflow_scores(forward, params, jnp.ones((1, run.layers[0].n_in)), sparsity=sparsity, layers=run.layers)
