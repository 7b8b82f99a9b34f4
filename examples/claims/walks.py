"""A look at the landscape of the loss, and what is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cases import Case, Setting


@dataclass(frozen=True)
class Walk:
    """One look at the landscape.

    Attributes:
        sparsity: of the networks.
        settings: by method: hyper-parameters of Static, RigL and pruning.
        steps: of each training.
        seed: of initial weights, batches and topologies.
    """

    sparsity: float
    settings: tuple[tuple[str, Setting], ...]
    steps: int
    seed: int

    @property
    def task(self) -> str:
        """The name of the task."""
        return "images"

    @property
    def method(self) -> str:
        """What it is called while it runs."""
        return "landscape"

    @property
    def cost(self) -> int:
        """The steps of all trainings: four networks, three curves."""
        return 7 * self.steps

    def case(self, method: str, seed: int) -> Case:
        """A training of one network."""
        return Case("images", method, self.sparsity, dict(self.settings)[method], self.steps, seed)


@dataclass(frozen=True)
class View:
    """What was seen.

    Attributes:
        losses: the training loss of each solution, by name.
        scores: the measure of each solution.
        curves: the training loss along each path from Static to pruning, by name.
    """

    losses: Mapping[str, float]
    scores: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]
