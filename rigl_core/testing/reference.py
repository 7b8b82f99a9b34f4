"""SGD and Adam in float64, after their papers, to compare ordinary steps with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rigl_core.testing.harness import Array, Mask, OptimizerSpec

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class ReferenceOptimizer:
    """The optimizer that an `OptimizerSpec` describes.

    Attributes:
        weights: the float64 weights by parameter name.
    """

    def __init__(self, spec: OptimizerSpec, weights: Mapping[str, Array]) -> None:
        self.spec = spec
        self.weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
        self._mean = {name: np.zeros_like(weight) for name, weight in self.weights.items()}
        self._square = {name: np.zeros_like(weight) for name, weight in self.weights.items()}
        self._steps = 0

    def keep(self, survivors: Mapping[str, Mask]) -> None:
        """A topology update: zero all weights and optimizer state except those of the survivors."""
        for name, mask in survivors.items():
            for values in (self.weights, self._mean, self._square):
                values[name] = np.where(mask, values[name], 0.0)

    def step(self, gradients: Mapping[str, Array]) -> None:
        """One step with the gradients of a sparse network."""
        self._steps += 1
        grads = {name: gradient.astype(np.float64) for name, gradient in gradients.items()}
        if self.spec.clip_norm is not None:
            norm = float(np.sqrt(sum((g * g).sum() for g in grads.values())))
            scale = min(1.0, self.spec.clip_norm / norm) if norm else 1.0
            grads = {name: g * scale for name, g in grads.items()}
        if self.spec.centered:
            grads = {name: g - g.mean() for name, g in grads.items()}
        for name, g in grads.items():
            self.weights[name] = self._stepped(name, self.weights[name], g)

    def _stepped(self, name: str, weight: Array, gradient: Array) -> Array:
        lr, decay = self.spec.lr, self.spec.weight_decay
        if self.spec.kind == "sgd":
            self._mean[name] = self.spec.momentum * self._mean[name] + gradient + decay * weight
            return weight - lr * self._mean[name]
        self._mean[name] = _BETA1 * self._mean[name] + (1 - _BETA1) * gradient
        self._square[name] = _BETA2 * self._square[name] + (1 - _BETA2) * gradient**2
        mean = self._mean[name] / (1 - _BETA1**self._steps)
        square = self._square[name] / (1 - _BETA2**self._steps)
        return weight * (1 - lr * decay) - lr * mean / (np.sqrt(square) + _EPS)
