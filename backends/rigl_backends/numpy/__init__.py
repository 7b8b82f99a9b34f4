"""RigL on NumPy alone: the smallest adapter, the reference for the others, and the one to embed."""

from rigl_backends.numpy.describe import describe
from rigl_backends.numpy.described import Described
from rigl_backends.numpy.layers import choose_layers
from rigl_backends.numpy.optimizers import SGD, Adam, Optimizer
from rigl_backends.numpy.saliency import grasp_scores, synflow_scores
from rigl_backends.numpy.sparsify import plan, sparsify
from rigl_backends.numpy.training import SparseTraining
from rigl_core.adapter import numpy_namespace

__all__ = [
    "SGD",
    "Adam",
    "Described",
    "Optimizer",
    "SparseTraining",
    "choose_layers",
    "describe",
    "grasp_scores",
    "numpy_namespace",
    "plan",
    "sparsify",
    "synflow_scores",
]
