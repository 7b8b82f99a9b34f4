"""The adapter of the array API target. Parameters are a dict of arrays; it replaces arrays and never writes to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import array_api_strict as xp
import numpy as np

from conformance_tests.harnesses.array_api_namespace import StandardArray, array_api_namespace
from rigl_core import adapter
from rigl_core.adapter import Layer, Plan, Recipe

Arrays = dict[str, StandardArray]

CPU, ELSEWHERE = xp.Device("CPU_DEVICE"), xp.Device("device1")


class Optimizer(Protocol):
    """An optimizer to make sparse; it has the parameters by name, and their per-weight state by the same names."""

    params: Arrays
    state: dict[str, list[StandardArray]]

    def step(self, gradients: Arrays) -> None: ...


class SparseLayer(adapter.SparseLayer):
    xp = array_api_namespace

    def __init__(self, layer: Layer, recipe: Recipe, optimizer: Optimizer) -> None:
        super().__init__(layer, recipe)
        self._optimizer = optimizer

    @property
    def weight(self) -> StandardArray:
        return xp.reshape(self._optimizer.params[self.layer.name], (-1,))

    @weight.setter
    def weight(self, weight: StandardArray) -> None:
        self._optimizer.params[self.layer.name] = xp.reshape(weight, self.layer.shape)

    def indices(self) -> StandardArray:
        return xp.arange(self.layer.size, dtype=xp.int32, device=ELSEWHERE)

    def zero_state_outside(self, mask: StandardArray) -> None:
        name, inside = self.layer.name, xp.reshape(mask, self.layer.shape)
        state = self._optimizer.state
        state[name] = [xp.where(inside, values, xp.zeros_like(values)) for values in state[name]]


class SparseTraining(adapter.SparseTraining[SparseLayer]):
    def __init__(self, plan: Plan, optimizer: Optimizer, scores: Mapping[str, Any] | None) -> None:
        super().__init__(plan, {i: SparseLayer(plan.layers[i], plan.recipe, optimizer) for i in plan.sparse_layers})
        self._optimizer = optimizer
        self.start(scores)

    def step_by(self, dense: Arrays) -> None:
        """One step, with the dense gradients of the parameters that were used."""
        self.tell_outside()
        named = ((i, layer.layer.name) for i, layer in self._layers.items())
        flat = {i: xp.reshape(dense[name], (-1,)) for i, name in named if name in dense}
        self.take_step(flat, lambda: self._gradient_step(dense), finite=lambda: _all_finite(dense))

    def _gradient_step(self, dense: Arrays) -> None:
        for layer in self._layers.values():
            layer.show_shadow()
        self._optimizer.step(dense if self._rule.shadow else {**dense, **self._for_optimizer(dense)})
        for layer in self._layers.values():
            layer.hide_shadow()
            layer.zero_what_is_outside()

    def _for_optimizer(self, dense: Arrays) -> Arrays:
        named = {layer.layer.name: layer for layer in self._layers.values() if layer.layer.name in dense}
        return {
            name: xp.reshape(layer.for_optimizer(xp.reshape(dense[name], (-1,)), self.step), layer.layer.shape)
            for name, layer in named.items()
        }

    def _mask(self, position: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        shape = self.plan.layers[position].shape
        sparse = position in self._layers
        return to_numpy(xp.reshape(self._layers[position].mask, shape)) if sparse else np.ones(shape, np.bool_)

    def _array(self, saved: Any) -> StandardArray:
        return xp.asarray(saved, device=ELSEWHERE, copy=True)

    def _copy(self, array: StandardArray) -> StandardArray:
        return xp.asarray(array, copy=True)


def to_numpy(array: StandardArray) -> np.ndarray[Any, np.dtype[Any]]:
    """A copy for NumPy, which cannot read the device of the arrays."""
    return np.array(array.to_device(CPU))


def _all_finite(arrays: Arrays) -> bool:
    return all(bool(xp.all(xp.isfinite(array))) for array in arrays.values())
