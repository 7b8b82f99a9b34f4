"""The steps of a sparse training in TensorFlow; all of it can be traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.tf.accumulation import Accumulation
from rigl_backends.tf.clock import TracedClock
from rigl_backends.tf.sparse_layer import SparseLayer
from rigl_core.plan import Plan

Call = Sequence[tuple[Any, Any]]
"""The gradients (None: not used) and variables of one call of an optimizer."""


class SparseTraining:
    """The gradient steps of an optimizer, on a topology that learns.

    Attributes:
        plan: the exact counts.
        layers: the layers that are not dense, by their position in the plan.
    """

    def __init__(
        self, plan: Plan, layers: Mapping[int, SparseLayer], clock: TracedClock, optimizer: keras.optimizers.Optimizer
    ) -> None:
        self.plan = plan
        self.layers = layers
        self._layer_of = {optimizer._var_key(layer.variable): layer for layer in layers.values()}
        self._clock = clock
        self._optimizer = optimizer
        self._accumulation = Accumulation(optimizer)

    def project(self) -> None:
        """Zero everything outside the masks."""
        for layer in self.layers.values():
            layer.project()

    def apply(self, call: Call) -> None:
        """One call of the optimizer: a step, or one of several that accumulate gradients for it."""
        if self._accumulation.calls == 1:
            self._step(call)
        else:
            tf.cond(self._accumulation.is_last_call(), lambda: self._step(call), lambda: self._before_step(call))

    def _before_step(self, call: Call) -> None:
        """A call that is not the last of its step: if an update is due then, it needs the dense gradients."""
        recipe = self.plan.recipe
        if self._clock.moves and (recipe.reads_gradient or recipe.on_update == "replace"):
            tf.cond(self._clock.due(), lambda: self._accumulate(call), lambda: self._apply_masked(call))
        else:
            self._apply_masked(call)

    def _step(self, call: Call) -> None:
        if not self._clock.moves:
            self._gradient_step(call)
            self._clock.advance(tf.constant(False))
            return
        recipe = self.plan.recipe
        gradients = self._dense_gradients(call) if recipe.reads_gradient else {}
        due = self._clock.due()
        waits = tf.cond(due & recipe.reads_gradient, lambda: ~self._all_finite(call), lambda: tf.constant(False))
        updating = due & ~waits
        if recipe.on_update == "replace":
            tf.cond(updating, lambda: self._move_instead(gradients), lambda: self._gradient_step(call))
        else:
            self._gradient_step(call)
            tf.cond(updating, lambda: self._move(gradients), lambda: None)
        self._clock.advance(waits)

    def _gradient_step(self, call: Call) -> None:
        if self._accumulation.calls > 1:  # they are dense where an update was due and has been deferred
            for layer in self.layers.values():
                total = self._accumulation.sum_of(layer.variable)
                total.assign(layer.masked(total))
        self._apply_masked(call)
        self.project()

    def _apply_masked(self, call: Call) -> None:
        """Show the optimizer the gradients of the active weights only."""
        grads = [self._masked(gradient, variable) for gradient, variable in call]
        self._optimizer.apply(grads, [variable for _, variable in call])

    def _masked(self, gradient: Any, variable: Any) -> Any:
        layer = self._layer_of.get(self._optimizer._var_key(variable))
        if gradient is None:
            return None
        # Inside a branch, Keras reduces only gradients that were made there: hence the identity.
        return tf.identity(gradient) if layer is None else layer.masked(gradient)

    def _accumulate(self, call: Call) -> None:
        for gradient, variable in call:
            if gradient is not None:
                self._accumulation.add(gradient, variable)
        self._accumulation.end_call()

    def _move_instead(self, gradients: Mapping[int, tf.Tensor]) -> None:
        """The update, in place of the gradient step."""
        self._move(gradients)
        self._accumulation.forget()

    def _move(self, gradients: Mapping[int, tf.Tensor]) -> None:
        update = self._clock.update()
        for position, layer in self.layers.items():
            layer.move(update, gradients.get(position))

    def _dense_gradients(self, call: Call) -> dict[int, tf.Tensor]:
        """The gradients that an update reads, by the layers' positions."""
        of_variable = {self._optimizer._var_key(variable): gradient for gradient, variable in call}
        given = {i: of_variable.get(self._optimizer._var_key(layer.variable)) for i, layer in self.layers.items()}
        return {
            i: self._accumulation.step_gradient(gradient, self.layers[i].variable)
            for i, gradient in given.items()
            if gradient is not None
        }

    def _all_finite(self, call: Call) -> tf.Tensor:
        """Whether all gradients of the step are, those of dense variables included."""
        gradients = [self._accumulation.step_gradient(*pair) for pair in call if pair[0] is not None]
        return tf.reduce_all([True, *(tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients)])
