"""Every method that the RigL paper compares, and some that came after: one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rigl_core as rigl
from rigl_core import NM, Blocks, ErdosRenyiKernel, Recipe, UpdateSchedule

ERK = ErdosRenyiKernel()
"""As all the others; pruning as published leaves the first layer dense, which here is nearly all of the network."""

OUTPUT = "*fc3*"
"""The last layer: blocks do not fit its ten outputs, so that it stays dense there."""


@dataclass(frozen=True)
class Setting:
    """What all methods are given.

    Attributes:
        sparsity: share of zero weights.
        steps: optimizer steps of the training.
        seed: of the recipe.
        every: steps between updates (ΔT).
    """

    sparsity: float
    steps: int
    seed: int = 0
    every: int = 50

    def schedule(self, every: int | None = None, until: float = 0.75) -> UpdateSchedule:
        """Updates in the first part of the training."""
        return UpdateSchedule.for_training(self.steps, every=every or self.every, until=until)


@dataclass(frozen=True)
class Entry:
    """One row of the comparison.

    Attributes:
        name: shown.
        make: the recipe of a setting; None for networks that are dense.
        kind: how it is trained: ``"recipe"``, ``"dense"``, ``"small dense"``, ``"lottery"``, or the name of the scores
            to compute first, ``"grasp"`` or ``"synflow"``.
    """

    name: str
    make: Callable[[Setting], Recipe] | None = None
    kind: str = "recipe"


def _by(method: Any, *, every: int | None = None, until: float = 0.75, **options: Any) -> Callable[[Setting], Recipe]:
    """A method at the setting's sparsity, with a schedule."""

    def make(s: Setting) -> Recipe:
        recipe: Recipe = method(s.sparsity, schedule=s.schedule(every, until), seed=s.seed, **options)
        return recipe

    return make


ENTRIES = (
    Entry("dense", kind="dense"),
    Entry("small dense", kind="small dense"),
    Entry("Static", lambda s: rigl.Static(s.sparsity, seed=s.seed)),
    Entry("SNIP", lambda s: rigl.SNIP(s.sparsity, seed=s.seed)),
    Entry("SNIP, by layer", lambda s: rigl.SNIP(s.sparsity, seed=s.seed, scope="layer")),
    Entry("GraSP", lambda s: rigl.GraSP(s.sparsity, seed=s.seed), kind="grasp"),
    Entry("SynFlow", lambda s: rigl.SynFlow(s.sparsity, seed=s.seed), kind="synflow"),
    Entry("Deep R", _by(rigl.DeepR, every=1, l1=1e-4, noise=1e-3)),
    Entry("SET", _by(rigl.SET)),
    Entry("SET as published", _by(rigl.SETAsPublished)),
    Entry("DSR", _by(rigl.DSR)),
    Entry("MEST", _by(rigl.MEST)),
    Entry("SNFS", _by(rigl.SNFS)),
    Entry("SNFS, no redistribution", _by(rigl.SNFS, redistribution=None)),
    Entry("RigL", _by(rigl.RigL)),
    Entry("RigL-ITOP", _by(rigl.RigLITOP, every=100, until=1.0)),
    Entry("SRigL", _by(rigl.SRigL)),
    Entry("RigL 2:4", lambda s: rigl.RigL(schedule=s.schedule(), structure=NM(2, 4), seed=s.seed)),
    Entry("RigL, 4x4 blocks", _by(rigl.RigL, structure=Blocks(4), dense=[OUTPUT])),
    Entry("gradual pruning", _by(rigl.GradualPruning, distribution=ERK)),
    Entry("gradual pruning, all layers", _by(rigl.GradualPruning, distribution=ERK, scope="global")),
    Entry("one-shot pruning", lambda s: rigl.OneShotPruning(s.sparsity, at=s.steps // 2, distribution=ERK)),
    Entry("lottery ticket", lambda s: rigl.LotteryTicket(s.sparsity, seed=s.seed), kind="lottery"),
    Entry("DNW", _by(rigl.DNW, every=1, until=1.0)),
    Entry("DNS", _by(rigl.DNS, distribution=ERK)),
)
