"""All layers of active weights in a training: what a step does with them. Each of them chooses on its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf

from rigl_backends.tf.active import ActiveLayer
from rigl_core.adapter import NEVER, Clock, Plan

Gradients = Mapping[int, tf.Tensor]
"""Of the step, flat, by the layers' positions."""


class ActivePools:
    """The layers of a plan that hold their active weights alone.

    Attributes:
        layers: they, by their positions in the plan.
    """

    def __init__(
        self, plan: Plan, layers: Mapping[int, ActiveLayer], step: keras.Variable, deferred: keras.Variable
    ) -> None:
        """``layers`` are by their positions in the plan; the other arguments are those of `SparseTraining`."""
        self._plan, self.layers = plan, layers
        for layer in layers.values():
            layer.link.clock = functools.partial(layer.clock, step, deferred)
            layer.link.reads = self._reads_samples
            layer.link.together = [other.link for other in layers.values()]

    def __bool__(self) -> bool:
        return bool(self.layers)

    def _reads_samples(self, step: int, deferred: bool) -> bool:
        schedule = self._plan.recipe.schedule or NEVER
        return self._plan.recipe.rule.reads_gradient and bool(Clock(schedule, step, deferred).due)

    def begin(self) -> None:
        """Before the first step."""
        for layer in self.layers.values():
            layer.begin()

    def see(self, update: tf.Tensor, gradients: Gradients) -> tf.Tensor:
        """Find all new topologies; says whether all dense gradients are finite."""
        finite = tf.constant(True)
        for number, layer, gradient in self._used(gradients):
            finite &= layer.see(update, gradient, functools.partial(self._plan.counts, pool=number))
        return finite

    def update(self, update: tf.Tensor, gradients: Gradients) -> None:
        """One update of each layer that was used."""
        for number, layer, gradient in self._used(gradients):
            layer.update(update, gradient, functools.partial(self._plan.counts, pool=number))

    def forget_samples(self, waits: tf.Tensor) -> None:
        """End a step that reads gradients, when it is known whether its update ``waits``."""
        for layer in self.layers.values():
            layer.forget_samples(waits)

    def _used(self, gradients: Gradients) -> Iterator[tuple[int, ActiveLayer, tf.Tensor]]:
        """The number of each pool with a gradient, its layer, and this."""
        for number, (first, *_) in enumerate(self._plan.pools):
            if first in self.layers and first in gradients:
                yield number, self.layers[first], gradients[first]
