"""Sparsity over time: how a network that starts dense, or denser, gets to its final sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from rigl_core.model.numbers import check_sparsity, decimal


@runtime_checkable
class Ramp(Protocol):
    """What the plan asks of a ramp."""

    @property
    def kind(self) -> str:
        """The name under which it is serialized."""

    def sparsity(self, progress: float, final: float) -> float:
        """The sparsity of a layer, or of all that share a budget, never falling.

        Args:
            progress: 0 before the first update; then from the first update to the last, which has 1, in equal steps.
            final: the sparsity at progress 1.
        """


@dataclass(frozen=True)
class CubicRamp:
    """final + (initial - final) * (1 - progress) ** power: gradual pruning (Zhu & Gupta 2017, equation 1).

    At the first update nothing is pruned yet. A schedule of a single update prunes all at once.

    Attributes:
        initial: sparsity to start with; layers that are to be denser in the end start as dense as they end.
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
