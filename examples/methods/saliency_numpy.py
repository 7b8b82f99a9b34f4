"""GraSP and SynFlow scores of the quickstart's network, in NumPy: derivatives by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_numpy import gradients
from rigl_backends.numpy import grasp_scores, synflow_scores
from runs import Arrays, Run


def grasp(run: Run, sparsity: float) -> Arrays:
    """GraSP scores by layer name, from the first batch."""
    images, labels = next(run.batches())
    exact = {name: array.astype(np.float64) for name, array in run.weights.items()}
    names = [layer.name for layer in run.layers]
    return grasp_scores(exact, lambda params: gradients(params, images, labels), layers=names)


def synflow(run: Run, sparsity: float) -> Arrays:
    """SynFlow scores by layer name, from an image of ones."""
    names = [layer.name for layer in run.layers]
    return synflow_scores(run.weights, flow_gradients, sparsity, layers=names)


def flow_gradients(params: Arrays) -> dict[str, Any]:
    """The gradient of the sum of the outputs for an image of ones, by name.

    The weights are absolute values, so a ReLU changes nothing unless a bias is negative.
    """
    into = [np.ones((1, params["fc1.weight"].shape[1]), np.float32)]
    for name in ("fc1", "fc2"):
        into.append(np.maximum(into[-1] @ params[f"{name}.weight"].T + params[f"{name}.bias"], 0))
    towards = np.ones((1, params["fc3.weight"].shape[0]), np.float32)
    found = {}
    for name, values in zip(("fc3", "fc2", "fc1"), reversed(into), strict=True):
        found[f"{name}.weight"], found[f"{name}.bias"] = towards.T @ values, towards.sum(axis=0)
        towards = (towards @ params[f"{name}.weight"]) * (values > 0)
    return found
