"""Where NumPy's arrays are that a step of `rigl_core.step.layer` changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.optimizers import Optimizer
from rigl_backends.numpy.state import fresh_state, state_of
from rigl_core import adapter
from rigl_core.adapter import Layer, Recipe, numpy_namespace, zero_outside

Array = npt.NDArray[Any]


class SparseLayer(adapter.SparseLayer):
    """One of the optimizer's arrays, changed in place, and its topology."""

    xp = numpy_namespace

    def __init__(self, layer: Layer, recipe: Recipe, optimizer: Optimizer) -> None:
        super().__init__(layer, recipe)
        self.mask = np.ones(layer.size, np.bool_)
        self.memory = {}
        self._optimizer = optimizer
        self._fresh = fresh_state(optimizer, layer.name, len(layer.shape))

    @property
    def weight(self) -> Array:
        return self._optimizer.params[self.layer.name].reshape(-1)

    @weight.setter
    def weight(self, weight: Array) -> None:
        self._optimizer.params[self.layer.name][...] = weight.reshape(self.layer.shape)

    def indices(self) -> Array:
        return np.arange(self.layer.size, dtype=np.int32)

    def zero_weight_outside(self, mask: Array) -> None:
        zero_outside(self._optimizer.params[self.layer.name], mask.reshape(self.layer.shape))

    def zero_state_outside(self, mask: Array) -> None:
        inside = mask.reshape(self.layer.shape)
        for key, values in state_of(self._optimizer, self.layer.name, self.layer.shape).items():
            if key in self._fresh:
                np.copyto(values, self._fresh[key], where=~inside)
            else:
                zero_outside(values, inside)
