"""One array, its topology, and what the optimizer and the method hold for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.optimizers import Optimizer
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.memory import first_memory, memory_after, observe, whole_weight
from rigl_core.arrays.namespace import numpy_namespace as xp
from rigl_core.arrays.noise import GRADIENT_NOISE, noisy_gradient
from rigl_core.arrays.random import INITIAL, random_key
from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe
from rigl_core.step.selection import zero_outside
from rigl_core.step.update import Moved, weights_after

Array = npt.NDArray[Any]


class SparseLayer:
    """A layer's part in a sparse training.

    Attributes:
        layer: the description.
        mask: its topology, bool, in its shape.
        memory: flat, what the recipe remembers of each connection (`rigl_core.arrays.memory`).
    """

    def __init__(self, layer: Layer, recipe: Recipe, optimizer: Optimizer) -> None:
        self.layer = layer
        self.mask = np.ones(layer.shape, np.bool_)
        self.memory: dict[str, Array] = {}
        self._recipe = recipe
        self._optimizer = optimizer

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def weight(self) -> Array:
        """The array itself."""
        return self._optimizer.params[self.name]

    def start(self, connections: Connections, mask: Array) -> None:
        """Begin with a topology: zeros outside it, also in what the optimizer holds already."""
        self.memory = first_memory(self._recipe.memories, connections, mask, xp=xp)
        self.set_mask(mask.reshape(self.layer.shape))
        self._zero_state(self.mask)

    def set_mask(self, mask: Array) -> None:
        """Take a topology over."""
        self.mask = mask
        zero_outside(self.weight, mask)

    def observe(self, grad: Array | None) -> None:
        """Remember what a step's dense gradient tells."""
        if grad is not None:
            self.memory = observe(self.memory, grad.reshape(-1), self._recipe.momentum, xp=xp)

    def show_shadow(self) -> None:
        """Before the optimizer's step: weights outside the mask take part in it."""
        if "shadow" in self.memory:
            self._set_weight(self._whole_weight())

    def hide_shadow(self) -> None:
        """After it: zero what is outside the mask, and remember those weights."""
        if "shadow" in self.memory:
            flat = self.mask.reshape(-1)
            self.memory = memory_after(self.memory, Connections(self.weight.reshape(-1)), flat, flat, xp=xp)
        zero_outside(self.weight, self.mask)

    def noisy(self, grad: Array, step: int) -> Array:
        """The gradient of active weights with what the recipe adds to it."""
        connections = self.connections(GRADIENT_NOISE, grad, indices=True)
        noisy = noisy_gradient(connections, self._recipe.l1, self._recipe.noise, step, xp=xp)
        return np.where(self.mask, noisy.reshape(self.layer.shape), np.zeros_like(grad))

    def connections(
        self, update: int, grad: Array | None = None, *, indices: bool, scores: Array | None = None
    ) -> Connections:
        """All connections at an update, or before the first; without a gradient it counts as 0."""
        weight = self._whole_weight()
        if grad is None and self._recipe.reads_gradient and update != INITIAL:
            grad = np.zeros_like(weight)
        return Connections(
            weight,
            None if grad is None else grad.reshape(-1),
            np.arange(self.layer.size, dtype=np.int32) if indices else None,
            random_key(self._recipe.seed, self.name, update),
            scores=None if scores is None else np.asarray(scores, xp.widen(weight).dtype).reshape(-1),
            layer=self.layer,
            **{kind: array for kind, array in self.memory.items() if kind != "shadow"},
        )

    def move_to(self, connections: Connections, moved: Moved) -> None:
        """Take an update over: topology, weights, optimizer state and memory."""
        mask, survivors = (x.reshape(self.layer.shape) for x in (moved.mask, moved.survivors))
        if self._recipe.grows_from_zero:
            zero_outside(self.weight, survivors)
        else:
            self._set_weight(weights_after(self._recipe, connections, self.mask.reshape(-1), moved, xp=xp))
        self.memory = memory_after(self.memory, connections, moved.mask, moved.survivors, xp=xp)
        self.mask = mask
        self._zero_state(survivors)

    def _whole_weight(self) -> Array:
        weight: Array = whole_weight(self.weight.reshape(-1), self.memory, self.mask.reshape(-1), xp=xp)
        return weight

    def _set_weight(self, flat: Array) -> None:
        self.weight[...] = flat.reshape(self.layer.shape)

    def _zero_state(self, survivors: Array) -> None:
        """Zero the per-weight optimizer state, but for the survivors; that of shadow weights stays."""
        if "shadow" not in self.memory:
            for values in self._optimizer.state[self.name].values():
                if np.shape(values) == self.layer.shape:
                    zero_outside(values, survivors)
