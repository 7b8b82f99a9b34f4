"""Where the arrays of one layer of an MLX model are."""

from __future__ import annotations

import mlx.core as mx
from mlx.optimizers import Optimizer
from mlx.utils import tree_map_with_path

import rigl_mlx_namespace
from rigl_core import adapter
from rigl_core.adapter import Layer, Recipe

Arrays = dict[str, mx.array]  # of a tree, by path


class SparseLayer(adapter.SparseLayer):
    """A layer and its topology, among parameters that a step replaces."""

    xp = rigl_mlx_namespace

    def __init__(self, layer: Layer, recipe: Recipe, params: Arrays, optimizer: Optimizer) -> None:
        super().__init__(layer, recipe)
        self._params, self._optimizer = params, optimizer

    @property
    def weight(self) -> mx.array:
        """The parameter, flat."""
        return self._params[self.layer.name].reshape(-1)

    @weight.setter
    def weight(self, weight: mx.array) -> None:
        self._params[self.layer.name] = weight.reshape(self.layer.shape)

    def indices(self) -> mx.array:
        """The flat indices."""
        return mx.arange(self.layer.size, dtype=mx.int32)

    def zero_state_outside(self, mask: mx.array) -> None:
        """Zero what the optimizer holds for each weight outside a mask: Adam's mean of fc.weight is at fc.weight.m."""
        inside = mask.reshape(self.layer.shape)

        def zeroed(path: str, values: mx.array) -> mx.array:
            own = path.rpartition(".")[0] == self.layer.name and values.shape == self.layer.shape
            return mx.where(inside, values, mx.zeros_like(values)) if own else values

        for optimizer in getattr(self._optimizer, "optimizers", [self._optimizer]):  # those of a MultiOptimizer
            optimizer.state = tree_map_with_path(zeroed, optimizer.state)
