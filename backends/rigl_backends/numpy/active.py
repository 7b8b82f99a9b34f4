"""Layers that hold only their active weights, in NumPy: their products, and their arrays in an optimizer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.optimizers import Optimizer
from rigl_backends.numpy.state import fresh_state, state_of
from rigl_core import adapter
from rigl_core.adapter import (
    ActiveOnly,
    Gradient,
    Index,
    Layer,
    Move,
    Products,
    Recipe,
    Whole,
    available_threads,
    best_kernels,
    errors,
)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


class ActiveLayer(adapter.ActiveLayer):
    """One of the optimizer's arrays, which holds the active weights in storage order after `begin`."""

    def __init__(
        self, layer: Layer, recipe: Recipe, index: Index, optimizer: Optimizer, drawn: Floats | None = None
    ) -> None:
        """Make a layer; ``drawn`` has its initial values if there is no dense array."""
        super().__init__(layer, recipe, index)
        self._optimizer, self._drawn = optimizer, drawn
        self._fresh = fresh_state(optimizer, layer.name, 1)

    def begin(self) -> None:
        """Put the active weights and their state in place of the dense ones."""
        params, name, index = self._optimizer.params, self.layer.name, self.index
        held = state_of(self._optimizer, name, self.layer.shape)
        self._optimizer.state[name].update({key: index.values(values) for key, values in held.items()})
        params[name] = index.values(params[name]) if self._drawn is None else self._drawn
        super().begin()

    @property
    def weight(self) -> Floats:
        return self._optimizer.params[self.layer.name]

    def take_move(self, move: Move, weight: Floats) -> None:
        old = self.weight
        state = self._optimizer.state[self.layer.name]
        for key, values in state_of(self._optimizer, self.layer.name, old.shape).items():
            state[key] = _into(values, move.of(values, self._fresh.get(key, 0)))
        self._optimizer.params[self.layer.name] = _into(old, weight)

    def gradient(self, given: Any) -> Gradient:
        """A gradient: what `SparseLinear.backward` gives, an array of the layer's shape, or active numbers alone."""
        if not isinstance(given, np.ndarray):
            gradient: Gradient = given
            return gradient
        if given.shape == self.layer.shape:
            return Whole(self.index.values(given), given.reshape(-1))
        if given.shape != self.weight.shape:
            raise errors.wrong_shape(self.layer, "gradient", given.shape)
        return ActiveOnly(given, self.layer.name)

    def check(self) -> None:
        """Refuse weights of another length than the index."""
        if self.weight.shape != (self.index.size,):
            raise ValueError(
                f"params[{self.layer.name!r}] has shape {self.weight.shape}, but the layer has {self.index.size} "
                "active weights: restore weights and topology together."
            )


class SparseProducts:
    """The products of a layer that holds only its active weights.

    Attributes:
        threads: the threads to work with.
    """

    def __init__(self, layer: ActiveLayer) -> None:
        self._layer, self._kernels = layer, best_kernels()
        self.threads = available_threads()

    @property
    def index(self) -> Index:
        """Where the active connections are; the values of ``params`` lie in its storage order."""
        return self._layer.index

    def dense(self) -> Floats:
        """A copy of the weights as an array of the layer's shape, with zeros outside the mask."""
        return self.index.dense(self._layer.weight).reshape(self._layer.layer.shape)


class SparseLinear(SparseProducts):
    """The products of a matrix.

    Inputs and outputs are (..., features), float32. Between two such layers nothing is copied: what they return lies
    feature by feature in memory, as they read it.
    """

    def __call__(self, x: Floats) -> Floats:
        """The outputs, without a bias.

        Args:
            x: inputs (..., inputs).

        Raises:
            TypeError, ValueError: if ``x`` is not float32, or has another number of inputs.
        """
        layer = self._layer
        layer.check()
        features = self._features("x", x, layer.index.cols)
        y = self._kernels.forward(layer.index, layer.weight, features, threads=self.threads)
        return y.T.reshape(*x.shape[:-1], layer.index.rows)

    def backward(self, x: Floats, dy: Floats, *, needs_inputs: bool = True) -> tuple[Floats | None, Products]:
        """The gradients.

        Args:
            x: the inputs (..., inputs) of the call.
            dy: the gradient of its outputs (..., outputs).
            needs_inputs: whether the gradient of the inputs is wanted.

        Returns:
            The gradient of the inputs (..., inputs), or None; and that of the weights, for the optimizer's ``step``.
            Add those of several calls or micro-batches. It keeps ``x`` and ``dy``, of which an update makes the
            dense gradient.

        Raises:
            TypeError, ValueError: if ``x`` or ``dy`` is not float32, or has another number of features.
        """
        layer, index = self._layer, self._layer.index
        layer.check()
        inputs, outputs = self._features("x", x, index.cols), self._features("dy", dy, index.rows)
        if inputs.shape[1] != outputs.shape[1]:
            raise ValueError(f"dy has {outputs.shape[1]} samples, and x {inputs.shape[1]}: give those of one call.")
        dx, gradient = self._kernels.backward(
            index, layer.weight, inputs, outputs, needs_inputs=needs_inputs, threads=self.threads
        )
        own = Products(
            gradient,
            [(inputs, outputs)],
            inputs_first=index.inputs_first,
            kernels=self._kernels,
            threads=self.threads,
        )
        return (None if dx is None else dx.T.reshape(x.shape)), own

    def _features(self, name: str, array: Floats, count: int) -> Floats:
        """An array (..., features) as (features, samples)."""
        if array.dtype != np.float32:
            raise TypeError(f"{name} is {array.dtype}: the kernels of sparse layers multiply float32.")
        if array.shape[-1:] != (count,):
            raise ValueError(f"{name} has shape {array.shape}: layer {self._layer.layer.name!r} has {count} features.")
        return np.ascontiguousarray(array.reshape(math.prod(array.shape[:-1]), count).T)


def _into(old: Array, new: Array) -> Array:
    """The new values in the old array, if it has room for just as many."""
    if old.shape != new.shape:
        return new
    old[...] = new
    return old
