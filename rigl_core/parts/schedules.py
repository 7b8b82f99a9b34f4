"""The update schedule: every ΔT optimizer steps, inside a window of the training (RigL paper, section 3 (2))."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from rigl_core.model.numbers import check_integer, decimal


@dataclass(frozen=True)
class UpdateSchedule:
    """Updates fire at step t iff begin <= t < end and (t - begin) is a multiple of ``every``.

    Steps are optimizer steps, counted from 0.

    Attributes:
        end: the step from which on no update fires (T_end in the paper). It has no default:
            give it, or derive it with `for_training`.
        every: steps between updates (ΔT in the paper).
        begin: the first step at which an update fires.

    Raises:
        TypeError, ValueError: names the parameter, for a value that is no whole number, or is negative, or for
            ``end`` < ``begin``.
    """

    end: int
    every: int = 100
    begin: int = 0

    def __post_init__(self) -> None:
        for field, least in (("end", 0), ("every", 1), ("begin", 0)):
            object.__setattr__(self, field, check_integer(field, getattr(self, field), least))
        if self.end < self.begin:
            raise ValueError(
                f"end is {self.end}, before begin={self.begin}: updates fire while begin <= step < end, "
                "so raise end or lower begin."
            )

    @classmethod
    def for_training(cls, total_steps: int, every: int = 100, until: float = 0.75, begin: int = 0) -> Self:
        """The schedule for a training of ``total_steps`` optimizer steps: ``end`` is floor(until * total_steps).

        Args:
            total_steps: optimizer steps of the whole training.
            every: steps between updates (ΔT).
            until: share of the training after which the topology stays fixed; the paper uses 0.75 to 0.8 (appendix).
            begin: the first step at which an update fires.
        """
        total_steps = check_integer("total_steps", total_steps, 1)
        share = decimal(until, "until")
        if not 0 <= share <= 1:
            raise ValueError(f"until is {until}: it must be in [0, 1], a share of total_steps.")
        return cls(end=math.floor(share * total_steps), every=every, begin=begin)

    def fires(self, step: Any) -> Any:
        """Whether an update fires at optimizer step ``step``: a bool, or a traced bool for a traced step."""
        return (self.begin <= step) & (step < self.end) & ((step - self.begin) % self.every == 0)

    @property
    def updates(self) -> int:
        """Number of updates."""
        return -(-(self.end - self.begin) // self.every)

    def step_of(self, update: int) -> int:
        """The step at which update number ``update`` (from 0) fires."""
        return self.begin + update * self.every

    def latest_update(self, step: Any) -> Any:
        """The number, from 0, of the last update that fires at or before ``step``.

        Args:
            step: a step inside the window, an integer or a traced scalar.
        """
        return (step - self.begin) // self.every

    def progress(self, update: int) -> float:
        """The position in the window at which update number ``update`` fires, in [0, 1)."""
        return (self.step_of(update) - self.begin) / (self.end - self.begin)
