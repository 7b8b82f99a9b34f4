"""Training on several replicas, under `tf.distribute`: one topology, which moves by the gradients of all of them.

Keras calls an optimizer once in each replica, with the gradients of that replica; its own step adds them up. A topology
belongs to all replicas, so the branch between a step and an update is taken across them: the step is then made in each
replica, and the update once, by the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from rigl_backends.tf.accumulation import Call
from rigl_backends.tf.namespace import in_xla
from rigl_backends.tf.training import SparseTraining

DIFFERENT = (
    "masks differ between replicas: something has written to one of them alone, or they got different sums of "
    "gradients. Load a checkpoint, and let all replicas do the same. The layers:"
)
PRIME, SPREAD = 2**31 - 1, 1_103_515_245
"""The sum over the active connections of place * SPREAD modulo PRIME is a digest of a mask."""


class ReplicatedTraining(SparseTraining):
    """The steps of all replicas, on one topology."""

    def __init__(self, *args: Any) -> None:
        """Args are those of `SparseTraining`."""
        super().__init__(*args)
        self._is_first = tf.Variable(True, trainable=False)

    @property
    def _strategy(self) -> Any:
        return self._optimizer._distribution_strategy

    def apply(self, call: Call) -> None:
        """The part of one replica in a step; its gradients are in ``call``."""
        context, variables = tf.distribute.get_replica_context(), [variable for _, variable in call]
        if context is None or context.strategy is not self._strategy:
            raise ValueError("optimizer trains several replicas: call apply in each of them, by strategy.run.")
        if in_xla():
            raise ValueError(
                "optimizer trains several replicas, and XLA compiles each of them alone, so they cannot move one "
                "topology: compile the step with jit_compile=False, as in model.compile(..., jit_compile=False)."
            )

        def take_step(_: Any, gradients: Sequence[Any]) -> None:
            self._take_step(list(zip(gradients, variables, strict=True)))

        # What is one tensor for all replicas would not be added up.
        own = [None if gradient is None else tf.identity(gradient) for gradient, _ in call]
        context.merge_call(take_step, args=(own,))

    def _take_step(self, call: Call) -> None:
        """Gradients are added up here only where an update, or the method's memory, reads them."""
        with tf.control_dependencies([self._check_masks()]):
            if self._rule.reads_every_gradient or not self._moves:
                super()._take_step(call)
            else:
                take_step = super()._take_step
                tf.cond(self._clock.due, lambda: take_step(call), lambda: self._ordinary_step(call))

    def _ordinary_step(self, call: Call) -> None:
        self._look_outside()
        self._take_plain_step(call)

    def _check_masks(self) -> tf.Tensor:
        """Before the first step and every update, refuse replicas whose masks differ: an update would only hide it."""
        now = tf.convert_to_tensor(self._is_first) | self._clock.due
        alike = tf.cond(now, self._compare_masks, lambda: tf.constant(True))
        self._is_first.assign(False)
        return alike

    def _compare_masks(self) -> tf.Tensor:
        extended = self._strategy.extended
        own = extended.call_for_each_replica(self._digests)
        total = extended.reduce_to(tf.distribute.ReduceOp.SUM, own, self._step.value)
        count = tf.constant(self._strategy.num_replicas_in_sync, tf.int64)
        pairs = zip(*map(self._strategy.experimental_local_results, (own, total)), strict=True)
        alike = tf.reduce_all([digests * count == sums for digests, sums in pairs], axis=0)
        names = tf.constant([layer.layer.name for layer in self.masked.values()])
        told = tf.debugging.Assert(tf.reduce_all(alike), [DIFFERENT, tf.boolean_mask(names, ~alike)], summarize=9)
        with tf.control_dependencies([told]):
            return tf.reduce_all(alike)

    def _digests(self) -> tf.Tensor:
        """A number for each mask of one replica. Masks that differ in one connection never share it."""
        return tf.stack([_digest(layer.mask) for layer in self.masked.values()])

    def _seen(self, call: Call) -> Call:
        """The sums over all replicas, as the optimizer would take them."""
        given = [(gradient, variable) for gradient, variable in call if gradient is not None]
        everywhere = self._step.value  # all replicas get each sum
        to = [(gradient, everywhere) for gradient, _ in given]
        sums = self._strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, to)
        first = [self._strategy.experimental_local_results(total)[0] for total in sums]
        return [(total, variable) for total, (_, variable) in zip(first, given, strict=True)]

    def _apply_shown(self, call: Call) -> None:
        """Each replica gives the optimizer its own gradients."""
        apply, variables = super()._apply_shown, [variable for _, variable in call]

        def apply_own(gradients: Sequence[Any]) -> None:
            apply(list(zip(gradients, variables, strict=True)))

        self._strategy.extended.call_for_each_replica(apply_own, args=([gradient for gradient, _ in call],))


def _digest(mask: tf.Tensor) -> tf.Tensor:
    places = tf.range(1, tf.size(mask, tf.int64) + 1) * SPREAD % PRIME
    return tf.reduce_sum(tf.where(mask, places, tf.zeros_like(places)))
