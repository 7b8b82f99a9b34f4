"""One training of the comparison, what it starts from, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import rigl_core as rigl
from rigl_core import GRADIENT_BY_OUTPUT, Cosine, ErdosRenyiKernel, Recipe, UpdateSchedule

EVERY = 50
"""ΔT: steps between two updates."""
UNTIL = 0.75
"""T_end, as a share of the training."""
LOWER_IS_BETTER = ("text",)
"""The tasks whose measure falls as the network learns."""


@dataclass(frozen=True)
class Setting:
    """The hyper-parameters that are tuned for each method.

    Attributes:
        learning_rate: the highest one.
        alpha: share of connections that the first update moves; methods that move none do not read it.
    """

    learning_rate: float
    alpha: float = 0.3


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        task: ``"images"`` or ``"text"``.
        method: a name in `METHODS`.
        sparsity: share of zero weights; 0 for dense.
        setting: hyper-parameters.
        steps: optimizer steps.
        seed: of initial weights, batches and topologies.
        part: what to measure on, ``"test"`` or ``"validation"``.
    """

    task: str
    method: str
    sparsity: float
    setting: Setting
    steps: int
    seed: int = 0
    part: str = "test"

    @property
    def cost(self) -> int:
        """The steps of all trainings."""
        return self.steps

    @property
    def recipe(self) -> Recipe | None:
        """How the topology is chosen; None for dense networks."""
        make, fraction = METHODS[self.method], Cosine(self.setting.alpha)
        return None if make is None else make(self.sparsity, schedule_of(self.steps), fraction, self.seed)


@dataclass(frozen=True)
class Result:
    """What a training gave.

    Attributes:
        score: the task's measure, after the last step.
        active: number of active weights.
        inference: operations of inference, dense = 1.
        training: operations of a step, averaged over the training, a dense step = 1.
        empty: share of the layers' outputs that have no connection.
        most_in: the largest share of a layer's connections that one output holds.
    """

    score: float
    active: int
    inference: float = 1.0
    training: float = 1.0
    empty: float = 0.0
    most_in: float = 0.0


def schedule_of(steps: int) -> UpdateSchedule:
    """When the topology moves in a training of so many steps; very short ones move it more often."""
    return UpdateSchedule.for_training(steps, every=min(EVERY, max(steps // 4, 1)), until=UNTIL)


Make = Callable[[float, UpdateSchedule, Cosine, int], Recipe]


def _moving(method: Callable[..., Recipe], **parts: Any) -> Make:
    return lambda s, schedule, fraction, seed: method(s, schedule=schedule, drop_fraction=fraction, seed=seed, **parts)


MOVING: Mapping[str, Make] = {
    "SET": _moving(rigl.SET),
    "SNFS": _moving(rigl.SNFS),
    "RigL": _moving(rigl.RigL),
    "RigL by output": _moving(rigl.RigL, grow=GRADIENT_BY_OUTPUT),
    "RigL, a floor": _moving(rigl.RigL, floor=1),
    "SRigL": _moving(rigl.SRigL),
    "SRigL as published": _moving(rigl.SRigLAsPublished),
}
"""The methods that read α, and how each makes its recipe from sparsity, schedule, drop fraction and seed."""
METHODS: Mapping[str, Make | None] = {
    "dense": None,
    "small dense": None,
    "Static": lambda s, schedule, fraction, seed: rigl.Static(s, seed=seed),
    "SNIP": lambda s, schedule, fraction, seed: rigl.SNIP(s, seed=seed),
    **MOVING,
    "pruning": lambda s, schedule, fraction, seed: rigl.GradualPruning(
        s, schedule=schedule, distribution=ErdosRenyiKernel(), seed=seed
    ),
}
"""All methods, in the order of the tables."""
COMPARED: Mapping[str, tuple[str, ...]] = {
    "images": tuple(METHODS),
    "text": ("dense", "small dense", "Static", "SET", "RigL", "RigL by output", "pruning"),
}
"""The methods that each task compares."""
SPARSITIES: Mapping[str, tuple[float, ...]] = {"images": (0.9, 0.95, 0.98), "text": (0.75, 0.9)}
TIMES = 3
"""The length of long trainings, as a multiple of the usual one."""


def compared(task: str) -> Iterator[tuple[str, float]]:
    """Each method that a task compares, at each sparsity; a dense network has the sparsity 0 alone."""
    for method in COMPARED[task]:
        for sparsity in (0.0,) if method == "dense" else SPARSITIES[task]:
            yield method, sparsity
