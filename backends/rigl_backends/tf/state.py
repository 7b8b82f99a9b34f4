"""What Keras's optimizers hold and do: state for each weight, accumulated gradients; and which keep zeros."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.tf.namespace import finfo

_ELEMENT_WISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.RMSprop,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.Lion,
)
"""Where weight, gradient and state are 0 their step is 0 / (0 + epsilon) at most. Subclasses may do anything."""


def state_of(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> list[list[keras.Variable]]:
    """The optimizer's variables that hold one number for each weight of a variable, for every variable.

    Keras optimizers make such a variable with ``add_variable_from_reference``, which names it after the
    weights (``dense_kernel_momentum``) and gives it their shape. Moments, accumulators and moving
    averages are found by these two, whatever the optimizer and however it keeps them.

    Args:
        optimizer: a built optimizer; one that holds further optimizers lists their variables too.
        variables: the variables it was built with, in that order.
    """
    prefixes = [f"{_path(variable)}_" for variable in variables]
    state: list[list[keras.Variable]] = [[] for _ in variables]
    seen: Counter[str] = Counter()
    for candidate in optimizer.variables:
        owners = [
            i
            for i, variable in enumerate(variables)
            if candidate.name.startswith(prefixes[i]) and candidate.shape == variable.shape
        ]
        if owners:
            # "a/kernel" begins like "a/kernel_b", so the longest wins; equal names are made in the variables' order.
            longest = max(len(prefixes[i]) for i in owners)
            owners = [i for i in owners if len(prefixes[i]) == longest]
            state[owners[seen[candidate.name] % len(owners)]].append(candidate)
            seen[candidate.name] += 1
    return state


def keeps_zeros(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> bool:
    """Whether weights and state that are 0, and have a gradient of 0, are +0 after any step of this optimizer.

    Clipping by a norm does not keep them where the norm is not finite: 0 * NaN. Nor does a constraint that moves the
    weights, or an epsilon that is 0 in their precision.
    """
    clips = optimizer.clipnorm is not None or optimizer.global_clipnorm is not None
    free = all(getattr(variable, "constraint", None) is None for variable in variables)
    least = max((finfo(tf.as_dtype(variable.dtype)).smallest_normal for variable in variables), default=0.0)
    return type(optimizer) in _ELEMENT_WISE and not clips and free and getattr(optimizer, "epsilon", 1.0) >= least


def single_optimizers(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Those that a `keras.optimizers.MultiOptimizer` holds; of any other optimizer just itself."""
    return list(getattr(optimizer, "optimizers", [optimizer]))


def of_inner_optimizer(name: str) -> property:
    """An attribute, or a method, that is the inner optimizer's."""

    def set_value(self: Any, value: Any) -> None:
        if hasattr(self, "inner_optimizer"):  # Keras sets defaults first
            setattr(self.inner_optimizer, name, value)

    return property(lambda self: getattr(self.inner_optimizer, name), set_value)


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

    def add(self, gradient: Any, variable: Any) -> None:
        """Add one gradient of a call that is not the last."""
        self.sum_of(variable).assign_add(self._unscaled(gradient))

    def end_call(self) -> None:
        """Count a call that was not the last and that the optimizer has not seen."""
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


def _path(variable: Any) -> str:
    """A variable's name as Keras writes it into the names of optimizer variables."""
    return str(getattr(variable, "path", variable.name)).replace("/", "_").replace(":", "_")
