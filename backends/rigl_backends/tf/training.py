"""The steps of a sparse training in TensorFlow; all of it can be traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.keras_common.state import ZEROED_EVERY
from rigl_backends.tf import xla
from rigl_backends.tf.accumulation import Accumulation, Call, changed_gradients
from rigl_backends.tf.active import ActiveLayer
from rigl_backends.tf.active_pools import ActivePools
from rigl_backends.tf.layer import Kept, Pool, SparseLayer, move_all
from rigl_backends.tf.namespace import all_finite, in_xla
from rigl_backends.tf.outside import Outside
from rigl_backends.tf.state import keeps_zeros
from rigl_core.adapter import NEVER, Clock, Plan, first_masks


class SparseTraining:
    """The gradient steps of an optimizer, on a topology that learns.

    Attributes:
        plan: the exact counts.
        layers: the layers that are not dense, by their position in the plan.
        masked: those of them that have masks.
        active: those that hold active weights alone.
        outside: tells what lies outside the masks.
        deferred: whether an update that fired is still to be made.
    """

    def __init__(
        self,
        plan: Plan,
        layers: Mapping[int, SparseLayer],
        names: Sequence[str],
        step: keras.Variable,
        deferred: keras.Variable,
        optimizer: keras.optimizers.Optimizer,
    ) -> None:
        """Args are for `SparseOptimizer`.

        Args:
            plan: the exact counts.
            layers: those of ``plan.sparse_layers``, by position.
            names: what users call the plan's layers.
            step: the number of the coming optimizer step.
            deferred: whether an update that fired is still to be made.
            optimizer: makes the gradient steps.
        """
        self.plan, self.layers = plan, layers
        self.masked = {i: layer for i, layer in layers.items() if not isinstance(layer, ActiveLayer)}
        active = {i: layer for i, layer in layers.items() if isinstance(layer, ActiveLayer)}
        self.active = ActivePools(plan, active, step, deferred)
        self.outside = Outside({names[i]: layer for i, layer in layers.items()})
        self._rule, self._schedule = plan.recipe.rule, plan.recipe.schedule or NEVER
        self._step, self.deferred = step, deferred
        self._layer_of = {optimizer._var_key(layer.variable): layer for layer in layers.values()}
        self._optimizer = optimizer
        self._accumulation = Accumulation(optimizer)
        self._keeps_zeros = keeps_zeros(optimizer, [layer.variable for layer in layers.values()])

    def start(self, scores: Mapping[str, Any] | None, kept: Mapping[int, Kept] | None = None) -> None:
        """Choose the initial topology, and zero what is outside it; or go on with one.

        Args:
            scores: by layer name, if the recipe asks for some. Without, everything is active until a state is loaded.
            kept: what layers of a training that goes on have, by their positions.
        """
        if kept is not None:
            for i, layer in self.layers.items():
                layer.go_on(kept[i])
            return
        if self._rule.initial.reads_scores and scores is None:
            masks = {i: tf.ones([layer.layer.size], tf.bool) for i, layer in self.masked.items()}
        else:
            named = [(layer.layer.name, layer) for layer in self.masked.values()]
            given = {} if scores is None else {name: layer.flat(scores[name]) for name, layer in named}
            masks = first_masks(self.plan, self.masked, given)
        for i, mask in masks.items():
            self.layers[i].start(self.layers[i].at_start(), mask)
        self.active.begin()

    def tell_outside(self) -> bool:
        """Warn of weights outside the masks, and say whether there are any."""
        return self.outside.tell()

    def zero_what_was_written(self) -> None:
        """Zero everything outside the masks."""
        for layer in self.layers.values():
            layer.zero_what_was_written()

    def apply(self, call: Call) -> None:
        """One call of the optimizer: a step, or one of several that accumulate gradients for it."""
        if self.active and in_xla():
            raise ValueError(
                "some layers hold only their active weights, which XLA cannot move: compile the step with "
                "jit_compile=False, or use storage='masks'."
            )
        if self._accumulation.calls == 1:
            self._take_step(call)
        else:
            last = self._accumulation.is_last_call()
            tf.cond(last, lambda: self._take_step(call), lambda: self._before_step(call))

    def _before_step(self, call: Call) -> None:
        """A call that is not the last of its step: if that reads them, it needs the dense gradients."""
        if self._rule.reads_every_gradient:
            self._accumulation.add(call)
        elif self._moves and (self._rule.reads_gradient or self._rule.on_update == "replace"):
            tf.cond(self._clock.due, lambda: self._accumulation.add(call), lambda: self._apply(call))
        else:
            self._apply(call)

    def _take_step(self, call: Call) -> None:
        rule, clock = self._rule, self._clock
        self._look_outside()
        seen = self._seen(call) if self._moves or rule.reads_every_gradient else []
        gradients = self._dense_gradients(seen)
        for position, gradient in gradients.items():
            self.layers[position].observe(gradient)
        if not self._moves:
            self._take_plain_step(call)
            return
        due = clock.due
        reads = due & rule.reads_gradient
        waits = tf.cond(reads, lambda: ~self._all_finite(seen, gradients), lambda: tf.constant(False))
        moving = due & ~waits
        if rule.on_update == "after":
            self._gradient_step(call)
        self._move(gradients, clock.update, when=moving)
        if rule.on_update == "replace":
            tf.cond(moving, self._accumulation.forget, lambda: self._gradient_step(call))
        if self.active:
            tf.cond(reads, lambda: self.active.forget_samples(waits), lambda: None)
        self._advance(clock.next(waits))

    def _take_plain_step(self, call: Call) -> None:
        """A step without an update."""
        self._gradient_step(call)
        self._advance(self._clock.next(waits=tf.constant(False)))

    def _seen(self, call: Call) -> Call:
        """The gradients as an update reads them."""
        return call

    def _look_outside(self) -> None:
        """Tell or count what others wrote outside the masks; XLA does not, since it copies weights for a branch."""
        if tf.executing_eagerly():
            if self.tell_outside():
                self.zero_what_was_written()
        elif not (in_xla() and self._keeps_zeros):
            self.outside.count(now=(self._clock.step % ZEROED_EVERY == 0) | self._clock.due)

    @property
    def _moves(self) -> bool:
        """Whether there are any updates."""
        return self._schedule.updates > 0

    @property
    def _clock(self) -> Clock:
        return Clock(self._schedule, *map(tf.convert_to_tensor, (self._step, self.deferred)))

    def _advance(self, clock: Clock) -> None:
        self._step.assign(clock.step)
        self.deferred.assign(clock.deferred)

    # The gradient step.

    def _gradient_step(self, call: Call) -> None:
        layers, shadow = self.layers.values(), self._rule.shadow
        if self._accumulation.calls > 1 and not shadow:
            for layer in layers:  # they are dense where all were read, or an update has been deferred
                total = self._accumulation.sum_of(layer.variable)
                total.assign(layer.zero_gradient_outside(total))
        for layer in layers:
            layer.show_shadow()
        self._apply(call)
        for layer in layers:
            layer.hide_shadow()
        if shadow or not self._keeps_zeros:
            self.zero_what_was_written()
        elif not in_xla():  # where a branch would copy the weights at every step
            tf.cond(self._clock.step % ZEROED_EVERY == 0, self.zero_what_was_written, lambda: None)

    def _apply(self, call: Call) -> None:
        changes = self._rule.changes_gradient
        with changed_gradients(self._optimizer, self._noisy) if changes else nullcontext():
            self._apply_shown(call)

    def _apply_shown(self, call: Call) -> None:
        """Show the optimizer what it is to see: the gradients of active weights; with shadow weights, of all."""
        grads = [self._for_optimizer(gradient, variable) for gradient, variable in call]
        self._optimizer.apply(grads, [variable for _, variable in call])

    def _for_optimizer(self, gradient: Any, variable: Any) -> Any:
        layer = self._layer_of.get(self._optimizer._var_key(variable))
        if gradient is None:
            return None
        if layer is None or self._rule.shadow:
            # Inside a branch, Keras reduces only gradients that were made there: hence the identity.
            return tf.identity(gradient)
        return layer.zero_gradient_outside(gradient)

    def _noisy(self, gradient: Any, variable: Any) -> Any:
        layer = self._layer_of.get(self._optimizer._var_key(variable))
        if layer is None:
            return gradient
        return layer.shaped(layer.for_optimizer(layer.flat(gradient), tf.cast(self._clock.step, tf.int32)))

    # The topology update.

    def _move(self, gradients: Mapping[int, tf.Tensor], update: tf.Tensor, *, when: tf.Tensor) -> None:
        """The update of every pool, except for pools of which no layer was used: what has no gradient stays (T6)."""
        # One row of each table: what is sliced must begin at a known row, or XLA compiles each row anew.
        all_rows = self.plan.tables._asdict().items()
        rows = {name: tf.gather(table, [tf.clip_by_value(update, 0, len(table) - 1)]) for name, table in all_rows}
        counts = partial(self.plan.tables._replace(**rows).counts, 0)
        pools = [
            Pool([self.layers[i] for i in pool], [gradients.get(i) for i in pool], update, partial(counts, number))
            for number, pool in enumerate(self.plan.pools)
            if pool[0] in self.masked and any(i in gradients for i in pool)
        ]
        if not xla.move(pools, when=when):
            tf.cond(when, lambda: move_all(pools), lambda: None)
        if self.active:
            tf.cond(when, lambda: self.active.update(update, gradients), lambda: None)

    def _dense_gradients(self, call: Call) -> dict[int, tf.Tensor]:
        """The gradients of the whole step, flat, by the layers' positions."""
        of_variable = {self._optimizer._var_key(variable): gradient for gradient, variable in call}
        given = {i: of_variable.get(self._optimizer._var_key(layer.variable)) for i, layer in self.layers.items()}
        return {
            i: self.layers[i].flat(self._accumulation.step_gradient(gradient, self.layers[i].variable))
            for i, gradient in given.items()
            if gradient is not None
        }

    def _all_finite(self, call: Call, gradients: Mapping[int, tf.Tensor]) -> tf.Tensor:
        """Whether all gradients of the step are, those of dense variables included."""
        finite = all_finite([self._accumulation.step_gradient(*pair) for pair in call if pair[0] is not None])
        if not self.active:
            return finite
        return tf.cond(finite, lambda: self.active.see(self._clock.update, gradients), lambda: tf.constant(False))
