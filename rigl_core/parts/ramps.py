"""Ramps: the sparsity over time of a network that starts dense, or denser than it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from rigl_core.model.numbers import check_sparsity, decimal


@runtime_checkable
class Ramp(Protocol):
    """The members that the plan reads."""

    @property
    def kind(self) -> str:
        """The name in saved recipes."""

    def sparsity(self, progress: float, final: float) -> float:
        """The sparsity of a layer, or of all layers that share a budget. It never falls as ``progress`` rises.

        Args:
            progress: 0 before and at the first update; it rises in equal steps to 1 at the last update.
            final: the sparsity at progress 1.
        """


@dataclass(frozen=True)
class CubicRamp:
    """final + (initial - final) * (1 - progress) ** power: gradual pruning (Zhu & Gupta 2017, equation 1).

    At the first update nothing is pruned yet. A schedule with a single update prunes everything at once.

    Attributes:
        initial: sparsity before the first update. A layer whose final sparsity is lower has that from the start.
        power: 3 as published; 1 is a straight line.
    """

    kind: ClassVar[str] = "cubic"
    initial: float = 0.0
    power: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "initial", check_sparsity(self.initial, "initial"))
        if decimal(self.power, "power") <= 0:
            raise ValueError(f"power is {self.power}: it must be positive.")
        object.__setattr__(self, "power", float(decimal(self.power, "power")))

    def sparsity(self, progress: float, final: float) -> float:
        if progress >= 1:
            return final
        return float(final + (min(self.initial, final) - final) * (1 - progress) ** self.power)


RAMPS: Mapping[str, type] = {CubicRamp.kind: CubicRamp}
