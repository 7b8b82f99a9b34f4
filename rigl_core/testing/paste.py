"""The names in a printed case: ``from rigl_core.testing.paste import *``, and then the case as it was printed."""

from numpy import array, float16, float32, float64, inf, nan

from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe
from rigl_core.testing.harness import OptimizerSpec
from rigl_core.testing.strategies import Training, Update

__all__ = [
    "Layer",
    "OptimizerSpec",
    "Recipe",
    "Training",
    "Update",
    "array",
    "float16",
    "float32",
    "float64",
    "inf",
    "nan",
]
