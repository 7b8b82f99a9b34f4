"""A trained network for use: it holds only its active weights, and needs NumPy alone, or numba to be fast.

Read `network` first, then `products` and `steps`. `file` has the format of the files.
"""

from rigl_core.serving.file import load
from rigl_core.serving.network import Network
from rigl_core.serving.products import Conv, Dense, Linear
from rigl_core.serving.step import Step
from rigl_core.serving.steps import Activation, Affine, AveragePool, Flatten, GlobalAverage, MaxPool

__all__ = [
    "Activation",
    "Affine",
    "AveragePool",
    "Conv",
    "Dense",
    "Flatten",
    "GlobalAverage",
    "Linear",
    "MaxPool",
    "Network",
    "Step",
    "load",
]
