"""`rigl_core.step.clock.Clock` in traced form: its step and its flag are variables, which Keras saves."""

from __future__ import annotations

import keras
import tensorflow as tf

from rigl_core.parts.schedules import UpdateSchedule


class TracedClock:
    """Counts optimizer steps and tells which update is due; see `rigl_core.step.clock.Clock` for the rules.

    Attributes:
        moves: whether there are any updates; without, nothing can be due.
    """

    def __init__(self, schedule: UpdateSchedule | None, step: keras.Variable, deferred: keras.Variable) -> None:
        self._schedule = schedule or UpdateSchedule(end=0)
        self._step = step
        self._deferred = deferred
        self.moves = self._schedule.updates > 0

    @property
    def step(self) -> tf.Tensor:
        """The number of the coming optimizer step."""
        return tf.convert_to_tensor(self._step)

    def due(self) -> tf.Tensor:
        """Whether an update is to be made at the coming step."""
        return self._schedule.fires(self.step) | tf.convert_to_tensor(self._deferred)

    def update(self) -> tf.Tensor:
        """The number of the update that is due; call it only then."""
        latest = (self.step - self._schedule.begin) // self._schedule.every
        return tf.minimum(latest, self._schedule.updates - 1)

    def advance(self, waits: tf.Tensor) -> None:
        """One optimizer step is over; ``waits`` if an update was due and has not been made. It lapses at the end."""
        self._step.assign_add(1)
        self._deferred.assign(waits & (self.step < self._schedule.end))
