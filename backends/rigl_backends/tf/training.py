"""The steps of a sparse training in TensorFlow; all of it can be traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.tf.accumulation import Accumulation
from rigl_backends.tf.clock import TracedClock
from rigl_backends.tf.elementwise import keeps_zeros
from rigl_backends.tf.namespace import has_gpu, in_xla
from rigl_backends.tf.namespace import tensorflow_namespace as xp
from rigl_backends.tf.noise import changed_gradients
from rigl_backends.tf.packed import can_pack, updated_masks
from rigl_backends.tf.sparse_layer import SparseLayer
from rigl_core.arrays.connections import Connections
from rigl_core.plan import Plan
from rigl_core.step.update import Counts, Moved, chooses_freely, move_pool

ZEROED_EVERY = 100
"""Steps after which everything outside the masks is zeroed, of optimizers too that leave zeros alone: anybody else may
have written there."""

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
        self._keeps_zeros = keeps_zeros(optimizer, layers.values())
        self._tables = [tf.constant(table) for table in (plan.keep_counts, plan.grow_counts, plan.digits)]

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
        """A call that is not the last of its step: if that reads them, it needs the dense gradients."""
        recipe = self.plan.recipe
        if recipe.reads_every_gradient:
            self._accumulate(call)
        elif self._clock.moves and (recipe.reads_gradient or recipe.on_update == "replace"):
            tf.cond(self._clock.due(), lambda: self._accumulate(call), lambda: self._apply(call))
        else:
            self._apply(call)

    def _step(self, call: Call) -> None:
        recipe = self.plan.recipe
        gradients = self._dense_gradients(call) if recipe.reads_gradient or recipe.reads_every_gradient else {}
        if "momentum" in recipe.memories:
            for position, gradient in gradients.items():
                self.layers[position].observe(gradient)
        if not self._clock.moves:
            self._gradient_step(call)
            self._clock.advance(tf.constant(False))
            return
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
        if self._accumulation.calls > 1 and not self._has_shadow:
            for layer in self.layers.values():  # they are dense where all were read, or an update has been deferred
                total = self._accumulation.sum_of(layer.variable)
                total.assign(layer.masked(total))
        for layer in self.layers.values():
            layer.show_shadow()
        self._apply(call)
        for layer in self.layers.values():
            layer.hide_shadow()
        if self._has_shadow:
            return
        if not self._keeps_zeros:
            self.project()
        elif not in_xla():  # where a branch would copy the weights at every step
            tf.cond(self._clock.step % ZEROED_EVERY == 0, self.project, lambda: None)

    @property
    def _has_shadow(self) -> bool:
        return "shadow" in self.plan.recipe.memories

    def _apply(self, call: Call) -> None:
        """Show the optimizer what it is to see: the gradients of active weights; with shadow weights, of all."""
        grads = [self._for_optimizer(gradient, variable) for gradient, variable in call]
        with changed_gradients(self._optimizer, self._noisy if self.plan.recipe.changes_gradient else None):
            self._optimizer.apply(grads, [variable for _, variable in call])

    def _for_optimizer(self, gradient: Any, variable: Any) -> Any:
        layer = self._layer_of.get(self._optimizer._var_key(variable))
        if gradient is None:
            return None
        if layer is None or self._has_shadow:
            # Inside a branch, Keras reduces only gradients that were made there: hence the identity.
            return tf.identity(gradient)
        return layer.masked(gradient)

    def _noisy(self, gradient: Any, variable: Any) -> Any:
        layer = self._layer_of.get(self._optimizer._var_key(variable))
        return gradient if layer is None else layer.noisy(gradient, tf.cast(self._clock.step, tf.int32))

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
        keep, grow, digits = (tf.gather(table, tf.minimum(update, len(table) - 1)) for table in self._tables)
        moving = [number for number, pool in enumerate(self.plan.pools) if self._can_move(pool, gradients)]
        layers = [i for number in moving for i in self.plan.pools[number]]
        connections = {i: self.layers[i].connections(update, gradients.get(i)) for i in layers}
        packed = [number for number in moving if self._is_packed(self.plan.pools[number], connections)]
        self._move_packed(packed, connections, [keep[i] for i in packed], [grow[i] for i in packed])
        for number in moving:
            if number not in packed:
                self._move_pool(self.plan.pools[number], connections, Counts(keep[number], grow[number], digits))

    def _can_move(self, pool: Sequence[int], gradients: Mapping[int, tf.Tensor]) -> bool:
        """Not a layer on its own that was not used, and so has no gradient."""
        return not self.plan.recipe.reads_gradient or len(pool) > 1 or pool[0] in gradients

    def _is_packed(self, pool: Sequence[int], connections: Mapping[int, Connections]) -> bool:
        recipe = self.plan.recipe
        simple = len(pool) == 1 and chooses_freely(recipe, connections[pool[0]])
        return simple and can_pack(recipe) and in_xla() and not has_gpu()  # which had to wait for each row

    def _move_packed(
        self,
        pools: Sequence[int],
        connections: Mapping[int, Connections],
        keep: Sequence[tf.Tensor],
        grow: Sequence[tf.Tensor],
    ) -> None:
        """The topology updates of layers on their own, all at once."""
        own = [self.plan.pools[number][0] for number in pools]
        masks = [self.layers[i].flat_mask for i in own]
        new = updated_masks(self.plan.recipe, [connections[i] for i in own], masks, keep, grow)
        for i, old, mask in zip(own, masks, new, strict=True):
            self.layers[i].move_to(connections[i], Moved(mask, mask & old))

    def _move_pool(self, pool: Sequence[int], connections: Mapping[int, Connections], counts: Counts) -> None:
        """One pool's topology update."""
        layers, own = [self.layers[i] for i in pool], [connections[i] for i in pool]
        moved = move_pool(self.plan.recipe, own, [layer.flat_mask for layer in layers], counts, xp=xp)
        for layer, before, new in zip(layers, own, moved, strict=True):
            layer.move_to(before, new)

    def _dense_gradients(self, call: Call) -> dict[int, tf.Tensor]:
        """The gradients of the whole step, by the layers' positions."""
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
