"""The steps of a sparse training with Keras on JAX or PyTorch; on JAX all of it can be traced."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from rigl_backends.keras.framework import framework
from rigl_backends.keras.layer import SparseLayer
from rigl_backends.keras.state import keeps_zeros
from rigl_backends.keras_common.state import ZEROED_EVERY
from rigl_core.adapter import NEVER, Clock, Plan, SparsityWarning, errors, move_layers

Call = Sequence[tuple[Any, Any]]
"""The gradients (None: not used) and variables of one call of an optimizer."""


class SparseTraining:
    """The gradient steps of an optimizer, on a topology that learns.

    Attributes:
        plan: the exact counts.
        layers: the layers that are not dense, by their position in the plan.
    """

    def __init__(
        self,
        plan: Plan,
        layers: Mapping[int, SparseLayer],
        step: keras.Variable,
        deferred: keras.Variable,
        optimizer: keras.optimizers.Optimizer,
    ) -> None:
        """Args are for `SparseOptimizer`.

        Args:
            plan: the exact counts.
            layers: those of ``plan.sparse_layers``, by position.
            step: the number of the coming optimizer step.
            deferred: whether an update that fired is still to be made.
            optimizer: makes the gradient steps.
        """
        self.plan, self.layers = plan, layers
        self._rule, self._schedule = plan.recipe.rule, plan.recipe.schedule or NEVER
        self._step, self._deferred, self._optimizer = step, deferred, optimizer
        self._layer_of = {id(layer.variable): layer for layer in layers.values()}
        self._keeps_zeros = keeps_zeros(optimizer, [layer.variable for layer in layers.values()])

    def apply(self, call: Call, changed: Sequence[keras.Variable]) -> None:
        """One step.

        Args:
            call: gradients and variables.
            changed: all variables that a step reads or changes.
        """
        clock = Clock(self._schedule, framework.number(self._step), framework.number(self._deferred))
        due, after = clock.due, self._rule.on_update == "after"
        reads = due & self._rule.reads_gradient
        given = [gradient for gradient, _ in call if gradient is not None]
        waits = framework.choose(reads, lambda: framework.not_finite(given), lambda: reads)
        if after or not self._schedule.updates:
            self._gradient_step(call)
        if self._schedule.updates:
            other = _nothing if after else lambda: self._gradient_step(call)
            framework.either(due != waits, lambda: self._move(call, clock), other, changed)
        framework.either(clock.step % self._zeroed_every == 0, self.zero_what_is_outside, _nothing, changed)
        after_step = clock.next(waits)
        self._step.assign(after_step.step)
        self._deferred.assign(after_step.deferred)

    def zero_what_is_outside(self) -> None:
        """Zero everything outside the masks."""
        for layer in self.layers.values():
            layer.zero_what_is_outside()

    def tell_outside(self) -> None:
        """Warn of weights outside the masks."""
        counts = {layer.variable.path: layer.outside for layer in self.layers.values()}
        if any(counts.values()):
            warnings.warn(errors.weights_outside(counts), SparsityWarning, stacklevel=4)

    @property
    def _zeroed_every(self) -> int:
        return ZEROED_EVERY if self._keeps_zeros else 1

    def _gradient_step(self, call: Call) -> None:
        """The optimizer sees the gradients of active weights."""
        grads = [self._inside(gradient, variable) for gradient, variable in call]
        self._optimizer.apply(grads, [variable for _, variable in call])

    def _inside(self, gradient: Any, variable: Any) -> Any:
        layer = self._layer_of.get(id(variable))
        return gradient if layer is None or gradient is None else layer.zero_gradient_outside(gradient)

    def _move(self, call: Call, clock: Clock) -> None:
        """The update of every pool, except for pools of which no layer was used: what has no gradient stays (T6)."""
        dense = {id(variable): gradient for gradient, variable in call if gradient is not None}
        for number, pool in enumerate(self.plan.pools):
            layers = [self.layers[i] for i in pool]
            gradients = [dense.get(id(layer.variable)) for layer in layers]
            if any(gradient is not None for gradient in gradients):
                flat = [None if one is None else layer.flat(one) for layer, one in zip(layers, gradients, strict=True)]
                move_layers(layers, clock.update, flat, framework.counts(self.plan, clock.update, number))


def _nothing() -> None:
    """No change."""
