"""The clock of a training: the optimizer step, and whether an update waits for finite gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rigl_core.parts.schedules import UpdateSchedule

NEVER = UpdateSchedule(end=0)
"""The schedule of a topology that never moves."""


@dataclass(frozen=True)
class Clock:
    """Tells which update is due at a step. Its numbers are Python numbers or traced scalars.

    An update whose gradients are not finite is deferred to the next step whose gradients are finite. It lapses when the
    next update fires, or at ``end``; from ``end`` on the topology never moves.

    Attributes:
        schedule: when updates fire.
        step: the number of the coming optimizer step, from 0.
        deferred: whether an update has fired and still waits for finite gradients.
    """

    schedule: UpdateSchedule
    step: Any = 0
    deferred: Any = False

    @property
    def due(self) -> Any:
        """Whether an update is due at the coming step."""
        return self.schedule.fires(self.step) | self.deferred

    @property
    def update(self) -> Any:
        """The number, from 0, of the update that is due; without meaning if no update is due."""
        return self.schedule.latest_update(self.step)

    def next(self, waits: Any) -> Clock:
        """The clock after the coming step.

        Args:
            waits: whether an update was due at the coming step and was not made.
        """
        step = self.step + 1
        return Clock(self.schedule, step, waits & (step < self.schedule.end))
