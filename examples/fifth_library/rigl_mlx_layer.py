"""One array of an MLX model, its topology, and what the method remembers of it."""

from __future__ import annotations

import mlx.core as mx

from rigl_core import Connections, Layer, Moved, Recipe, random_key, weights_after
from rigl_core.arrays.memory import first_memory, memory_after, observe, whole_weight
from rigl_core.arrays.noise import GRADIENT_NOISE, noisy_gradient
from rigl_mlx_namespace import mlx_namespace as xp


class SparseLayer:
    """A layer's part in a sparse training. Weights and gradients come and go in its shape.

    Attributes:
        mask: its topology, bool, in its shape.
        memory: flat arrays, what the recipe remembers of each connection (`rigl_core.arrays.memory`).
    """

    def __init__(self, layer: Layer, recipe: Recipe) -> None:
        self.layer, self._recipe = layer, recipe
        self.mask = mx.ones(layer.shape, mx.bool_)
        self.memory: dict[str, mx.array] = {}

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    def connections(
        self, update: int, weight: mx.array, gradient: mx.array | None = None, scores: mx.array | None = None
    ) -> Connections:
        """All connections at an update, or before the first; without a gradient it counts as 0."""
        whole = self.whole_weight(weight).reshape(-1)
        return Connections(
            whole,
            mx.zeros_like(whole) if gradient is None else gradient.reshape(-1),
            mx.arange(self.layer.size, dtype=mx.int32),
            random_key(self._recipe.seed, self.name, update),
            scores=None if scores is None else mx.array(scores, weight.dtype).reshape(-1),
            layer=self.layer,
            **{kind: array for kind, array in self.memory.items() if kind != "shadow"},
        )

    def start(self, connections: Connections, mask: mx.array) -> None:
        """Begin with a topology, from the weights as they were before."""
        self.memory = first_memory(self._recipe.memories, connections, mask, xp=xp)
        self.mask = mask.reshape(self.layer.shape)

    def observe(self, gradient: mx.array) -> None:
        """Remember what a step's dense gradient tells."""
        self.memory = observe(self.memory, gradient.reshape(-1), self._recipe.momentum, xp=xp)

    def noisy(self, weight: mx.array, gradient: mx.array, step: int) -> mx.array:
        """The gradient with what the recipe adds to it."""
        connections = self.connections(GRADIENT_NOISE, weight, gradient)
        noisy = noisy_gradient(connections, self._recipe.l1, self._recipe.noise, step, xp=xp)
        return noisy.reshape(self.layer.shape)

    def whole_weight(self, weight: mx.array) -> mx.array:
        """The weights, with those that go on learning outside the mask."""
        whole = whole_weight(weight.reshape(-1), self.memory, self.mask.reshape(-1), xp=xp)
        return whole.reshape(self.layer.shape)

    def remember(self, weight: mx.array) -> None:
        """After the optimizer's step: the weights outside the mask, if they go on learning."""
        if "shadow" in self.memory:
            mask = self.mask.reshape(-1)
            self.memory = memory_after(self.memory, Connections(weight.reshape(-1)), mask, mask, xp=xp)

    def move_to(self, connections: Connections, moved: Moved) -> tuple[mx.array, mx.array]:
        """Take an update over; gives the new weights, and which connections keep their optimizer state."""
        weight = weights_after(self._recipe, connections, self.mask.reshape(-1), moved, xp=xp)
        self.memory = memory_after(self.memory, connections, moved.mask, moved.survivors, xp=xp)
        self.mask = moved.mask.reshape(self.layer.shape)
        return weight.reshape(self.layer.shape), moved.survivors.reshape(self.layer.shape)
