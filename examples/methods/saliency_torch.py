"""GraSP and SynFlow scores of the quickstart's network, in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mlp_torch import MLP
from rigl_backends.torch import grasp_scores, synflow_scores
from runs import Arrays, Run


def grasp(run: Run, sparsity: float) -> Arrays:
    """GraSP scores by layer name, from the first batch."""
    images, labels = next(run.batches())
    return _arrays(grasp_scores(MLP(run), cross_entropy, torch.from_numpy(images), torch.from_numpy(labels)))


def synflow(run: Run, sparsity: float) -> Arrays:
    """SynFlow scores by layer name, from an image of ones."""
    return _arrays(synflow_scores(MLP(run), torch.ones(1, run.layers[0].n_in), sparsity))


def _arrays(scores: dict[str, Tensor]) -> Arrays:
    return {name: tensor.numpy() for name, tensor in scores.items()}
