"""Where a training stands: the optimizer step, and whether an update waits for finite gradients."""

from __future__ import annotations

from dataclasses import dataclass

from rigl_core.parts.schedules import UpdateSchedule


@dataclass
class Clock:
    """Counts optimizer steps on the host and tells which update is due.

    An update whose gradients are not finite is deferred to the next step whose gradients are; it lapses
    when the next update fires or at ``end``, after which the topology never moves.

    Attributes:
        schedule: when updates fire; None for never.
        step: the number of the coming optimizer step, from 0.
        deferred: whether an update that fired is still to be made.
    """

    schedule: UpdateSchedule | None
    step: int = 0
    deferred: bool = False

    @property
    def due(self) -> int | None:
        """The number of the update to make at the coming step, or None."""
        if self.schedule is None or not (self.schedule.fires(self.step) or self.deferred):
            return None
        return self.schedule.latest_update(self.step)

    def defer(self) -> None:
        """The update that is due waits for the next step."""
        self.deferred = True

    def advance(self, *, updated: bool) -> None:
        """One optimizer step is over; ``updated`` if the update that was due has been made."""
        self.step += 1
        closed = self.schedule is None or self.step >= self.schedule.end
        if updated or closed:
            self.deferred = False
