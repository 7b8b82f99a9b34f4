"""The rule: the parts of a recipe that act on arrays, without counts, times and names. A step reads nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rigl_core.arrays.memory import KINDS
from rigl_core.parts.criteria import Criterion
from rigl_core.parts.grown import GrownWeights, Zeros
from rigl_core.parts.structures import Structure


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How connections are chosen and changed; `rigl_core.Recipe` explains each part.

    Two recipes with equal rules differ only in the plan's numbers: how many connections they keep, and when. So they
    can share compiled code.

    Attributes:
        moves: whether the recipe has a schedule. If not, a training reads only ``initial``, ``scope`` and
            ``structure``.
    """

    moves: bool
    initial: Criterion
    drop: Criterion
    grow: Criterion | None
    scope: Literal["layer", "global"]
    redistribution: Literal["survivors", "mean_score"] | None
    structure: Structure
    floor: int
    gamma_sal: float | None
    grown: GrownWeights
    regrown: Literal["keep", "reset"]
    momentum: float
    shadow: bool
    l1: float
    noise: float
    on_update: Literal["replace", "after"]

    @cached_property
    def memories(self) -> tuple[str, ...]:
        """The kinds of memory that an adapter keeps for each connection (`rigl_core.arrays.memory`)."""
        needed = {
            "momentum": any(criterion.reads_momentum for criterion in self._moving),
            "sign": any(criterion.reads_sign for criterion in self._moving),
            "initial": "initial" in self.grown.reads,
            "shadow": self.shadow,
        }
        return tuple(kind for kind in KINDS if self.moves and needed[kind])

    @cached_property
    def reads_gradient(self) -> bool:
        """Whether an update reads a gradient."""
        return self.moves and (
            any(criterion.reads_gradient for criterion in self._moving) or "gradient" in self.grown.reads
        )

    @cached_property
    def reads_dense_gradient(self) -> bool:
        """Whether an update reads the gradient of inactive weights as well."""
        grows = self.grow is not None and self.grow.reads_gradient
        return self.moves and (grows or "gradient" in self.grown.reads)

    @cached_property
    def reads_every_gradient(self) -> bool:
        """Whether every step reads the dense gradient."""
        return "momentum" in self.memories or "shadow" in self.memories

    @property
    def sees_inactive(self) -> bool:
        """Whether an update, or every step, reads the gradient of inactive weights."""
        return self.reads_dense_gradient or self.reads_every_gradient

    @cached_property
    def reads_random(self) -> bool:
        """Whether an update draws random scores."""
        draws = any(criterion.reads_random or criterion.reads_sign for criterion in self._moving)
        return self.moves and (draws or "indices" in self.grown.reads)

    @cached_property
    def starts_random(self) -> bool:
        """Whether random scores are drawn before the first step."""
        return self.initial.reads_random or "sign" in self.memories

    @cached_property
    def changes_gradient(self) -> bool:
        """Whether the recipe adds ``l1`` or ``noise`` to the gradient of active weights (`rigl_core.arrays.noise`)."""
        return self.moves and bool(self.l1 or self.noise)

    @cached_property
    def grows_from_zero(self) -> bool:
        """Whether the only change that an update makes to weights is to set them to 0."""
        return self.grown.kind == Zeros.kind and not self.shadow

    @property
    def compares_units(self) -> bool:
        """Whether an update looks at the connections of each output, or of each input."""
        return self.floor > 0 or (self.grow is not None and self.grow.compared_within is not None)

    @property
    def _moving(self) -> tuple[Criterion, ...]:
        return (self.drop,) if self.grow is None else (self.drop, self.grow)
