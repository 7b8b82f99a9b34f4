"""An optimizer around another one, which it passes on to what Keras and users look for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rigl_backends.keras_common.variables import check_keras
from rigl_core.adapter import errors


def check_wrappable(optimizer: Any) -> None:
    """Refuse what is no optimizer of Keras, or cannot be wrapped.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    check_keras("optimizer", optimizer, keras.optimizers.Optimizer, "keras.optimizers.Optimizer")
    if isinstance(optimizer, Wrapper):
        raise errors.already_sparsified("optimizer")
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "optimizer is a LossScaleOptimizer, whose gradients are scaled: put it outside, as "
            "LossScaleOptimizer(sparsify(optimizer, recipe))."
        )


def _of_inner(name: str) -> property:
    """An attribute, or a method, that is the inner optimizer's."""

    def set_value(self: Any, value: Any) -> None:
        if hasattr(self, "inner_optimizer"):  # Keras sets defaults first
            setattr(self.inner_optimizer, name, value)

    return property(lambda self: getattr(self.inner_optimizer, name), set_value)


class Wrapper(keras.optimizers.Optimizer):  # type: ignore[misc]
    """What belongs to the inner optimizer is its own.

    Attributes:
        inner_optimizer: makes the gradient steps.
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, name: str | None) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer

    iterations = _of_inner("iterations")  # it stands still while a topology moves
    learning_rate = _of_inner("learning_rate")
    loss_scale_factor = _of_inner("loss_scale_factor")
    scale_loss = _of_inner("scale_loss")
    exclude_from_weight_decay = _of_inner("exclude_from_weight_decay")
    # Keras's SwapEMAWeights looks for it in what a LossScaleOptimizer holds.
    _model_variables_moving_average = _of_inner("_model_variables_moving_average")

    def __dir__(self) -> list[str]:
        """Without what Keras must not get, or load alone, while a model is half loaded: it takes all that is listed."""
        return [name for name in super().__dir__() if name not in ("inner_optimizer", "masks", "table")]

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""
        return int(self._iterations.numpy())

    @property
    def variables(self) -> list[keras.Variable]:
        """Its own, such as masks, and the inner optimizer's."""
        return [*self._variables, *self.inner_optimizer.variables]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all `variables`."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def _add_array(self, prefix: str, kind: str, values: Any) -> keras.Variable:
        name, dtype = f"{prefix}{kind}".replace("/", "_"), keras.backend.standardize_dtype(values.dtype)
        return self.add_variable(values.shape, lambda shape, dtype: values, dtype=dtype, name=name)
