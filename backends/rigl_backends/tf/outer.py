"""Optimizers of Keras around others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def single_optimizers(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Those that a `keras.optimizers.MultiOptimizer` holds; of any other optimizer just itself."""
    return list(getattr(optimizer, "optimizers", [optimizer]))


class OuterOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Passes on what belongs to the optimizer inside.

    Args:
        inner_optimizer: makes the gradient steps.
        name: the optimizer's name.
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, name: str | None = None) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer

    @property
    def variables(self) -> list[keras.Variable]:
        """Its own, such as masks, and the inner optimizer's."""
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        """The inner optimizer's; it stands still while a topology moves."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def loss_scale_factor(self) -> Any:
        """The inner optimizer's."""
        return self.inner_optimizer.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: Any) -> None:
        if hasattr(self, "inner_optimizer"):  # Keras sets a default first
            self.inner_optimizer.loss_scale_factor = factor

    def scale_loss(self, loss: Any) -> Any:
        """The inner optimizer's."""
        return self.inner_optimizer.scale_loss(loss)

    def exclude_from_weight_decay(self, *args: Any, **kwargs: Any) -> None:
        """The inner optimizer's."""
        self.inner_optimizer.exclude_from_weight_decay(*args, **kwargs)

    @property
    def _model_variables_moving_average(self) -> Any:
        """The inner optimizer's, which Keras's SwapEMAWeights looks for in what a LossScaleOptimizer holds."""
        return self.inner_optimizer._model_variables_moving_average

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all `variables`."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)
