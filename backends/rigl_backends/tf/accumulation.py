"""The gradients that an optimizer of Keras uses: accumulated over several calls, and changed at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.keras_common.state import single_optimizers

Call = Sequence[tuple[Any, Any]]
"""The gradients (None: not used) and variables of one call of an optimizer."""


@contextlib.contextmanager
def changed_gradients(optimizer: keras.optimizers.Optimizer, change: Callable[[Any, Any], Any]) -> Iterator[None]:
    """While this lasts, an optimizer's steps take changed gradients, which are accumulated and clipped already.

    Args:
        optimizer: any of Keras; one that holds others changes theirs.
        change: maps the gradient of a variable, and the variable, to the gradient that is used.
    """

    def changed(update_step: Callable[..., None]) -> Callable[..., None]:
        return lambda gradient, variable, rate: update_step(change(gradient, variable), variable, rate)

    for one in single_optimizers(optimizer):
        vars(one)["update_step"] = changed(one.update_step)
    try:
        yield
    finally:
        for one in single_optimizers(optimizer):
            del vars(one)["update_step"]


class Accumulation:
    """An optimizer's ``gradient_accumulation_steps`` and ``loss_scale_factor``, which an update must see through.

    Keras adds the gradients of all calls of a step except the last to accumulators of the optimizer; the
    last call takes the mean, clips it and moves the weights.

    Attributes:
        calls: how many calls of ``apply`` make one optimizer step.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self.calls: int = optimizer.gradient_accumulation_steps or 1
        self._optimizer = optimizer

    def is_last_call(self) -> tf.Tensor:
        """Whether the coming call ends an optimizer step."""
        return (self._optimizer._iterations + 1) % self.calls == 0

    def step_gradient(self, gradient: Any, variable: Any) -> tf.Tensor:
        """The gradient of the whole step, given the one of its last call."""
        gradient = self._unscaled(gradient)
        return gradient if self.calls == 1 else (gradient + self.sum_of(variable)) / self.calls

    def add(self, call: Call) -> None:
        """Add the gradients of a call that is not the last, and count it: the optimizer has not seen it."""
        for gradient, variable in call:
            if gradient is not None:
                self.sum_of(variable).assign_add(self._unscaled(gradient))
        self._optimizer._iterations.assign_add(1)

    def forget(self) -> None:
        """Be as before the first call of the coming step."""
        if self.calls > 1:
            self._optimizer._backend_reset_gradient_accumulators()
            self._optimizer._iterations.assign_sub(self.calls - 1)

    def sum_of(self, variable: Any) -> keras.Variable:
        """The accumulator of a variable."""
        return self._optimizer._accumulated_gradients[self._optimizer._get_variable_index(variable)]

    def _unscaled(self, gradient: Any) -> tf.Tensor:
        gradient = tf.convert_to_tensor(gradient)
        scale = self._optimizer.loss_scale_factor
        return gradient if scale is None else gradient / scale
