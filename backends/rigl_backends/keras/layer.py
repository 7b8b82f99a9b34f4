"""Where the variables of Keras are that a step of `rigl_core.step.layer` changes, on JAX and on PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from rigl_backends.keras.framework import framework
from rigl_backends.keras.state import PerWeight
from rigl_core import adapter
from rigl_core.adapter import Connections, Layer, Recipe, random_key_table


class SparseLayer(adapter.SparseLayer):
    """One variable of a model and its topology.

    Attributes:
        variable: the weights, in the layer's shape.
        mask_variable: the topology, flat.
        state: what the optimizer holds for each weight.
    """

    xp = framework.xp

    def __init__(
        self,
        layer: Layer,
        recipe: Recipe,
        variable: keras.Variable,
        state: Sequence[PerWeight],
        add: Callable[[str, Any], keras.Variable],
    ) -> None:
        """Args are for `SparseOptimizer`.

        Args:
            layer: the description.
            recipe: how to train sparsely.
            variable: the weights.
            state: what the optimizer holds for each weight.
            add: makes a variable of the optimizer, given its kind and first values.
        """
        super().__init__(layer, recipe)
        self.variable, self.state, self.memory = variable, state, {}
        self._add = add
        updates = recipe.schedule.updates if recipe.schedule is not None and self.rule.reads_random else 0
        self._random_keys = random_key_table(recipe.seed, [layer.name], updates)[:, 0]

    @property
    def weight(self) -> Any:
        return self.flat(self.variable)

    @weight.setter
    def weight(self, weight: Any) -> None:
        self.variable.assign(self.shaped(weight))

    @property
    def mask(self) -> Any:
        return ops.convert_to_tensor(self.mask_variable)

    @mask.setter
    def mask(self, mask: Any) -> None:
        self.mask_variable.assign(mask)

    def indices(self) -> Any:
        return ops.arange(self.layer.size, dtype="int32")

    def random_key(self, update: Any) -> tuple[Any, Any]:
        if isinstance(update, int):
            return super().random_key(update)
        first, second = ops.take(ops.convert_to_tensor(self._random_keys), update, axis=0)
        return first, second

    def zero_state_outside(self, mask: Any) -> None:
        for variable, fresh in self.state:
            values = self.flat(variable)
            outside = self.weight if fresh is None else self.xp.full_like(values, fresh)
            variable.assign(self.shaped(self.xp.where(mask, values, outside)))

    def start(self, connections: Connections, mask: Any) -> None:
        """Make the mask's variable, and zero what lies outside."""
        self.mask_variable = self._add("mask", ops.convert_to_numpy(mask))
        self.zero_what_is_outside()

    def zero_gradient_outside(self, gradient: Any) -> Any:
        """The gradient of active weights alone, in the layer's shape."""
        return self.shaped(self.zero_outside(self.flat(gradient)))

    def flat(self, values: Any) -> Any:
        """An array of the layer's shape as the core sees it."""
        return ops.reshape(ops.convert_to_tensor(values), (self.layer.size,))

    def shaped(self, values: Any) -> Any:
        """A flat array in the layer's shape."""
        return ops.reshape(values, self.layer.shape)
