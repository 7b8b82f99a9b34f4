"""A trained network for use: it holds only its active weights, and needs NumPy alone, or numba to be fast.

Read `chain` first, then `products` and `steps`. `file` has the format of the files. `to_scipy` stands apart.
"""

from rigl_core.serving.chain import Chain
from rigl_core.serving.file import load
from rigl_core.serving.products import Conv, Dense, Linear, pays
from rigl_core.serving.scipy_matrix import to_scipy
from rigl_core.serving.step import Step
from rigl_core.serving.steps import Activation, Affine, AveragePool, Flatten, GlobalAverage, MaxPool

__all__ = [
    "Activation",
    "Affine",
    "AveragePool",
    "Chain",
    "Conv",
    "Dense",
    "Flatten",
    "GlobalAverage",
    "Linear",
    "MaxPool",
    "Step",
    "load",
    "pays",
    "to_scipy",
]
