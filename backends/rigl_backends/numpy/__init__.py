"""RigL on NumPy alone: the smallest adapter, the reference for the others, and the one to embed."""

from rigl_backends.numpy.optimizers import SGD, Adam, Optimizer
from rigl_backends.numpy.saliency import grasp_scores, synflow_scores
from rigl_backends.numpy.sparsify import sparsify
from rigl_backends.numpy.training import SparseTraining

__all__ = ["SGD", "Adam", "Optimizer", "SparseTraining", "grasp_scores", "sparsify", "synflow_scores"]
