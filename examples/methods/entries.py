"""Every method that the RigL paper compares, and some later ones: one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rigl_core as rigl
from rigl_core import NM, Blocks, ErdosRenyiKernel, Recipe, UpdateSchedule

ERK = ErdosRenyiKernel()
"""The distribution of all entries. Published pruning leaves the first layer dense: here nearly the whole network."""

OUTPUT = "*fc3*"
"""The last layer. Blocks of 4 do not fit its ten outputs, so it stays dense with blocks."""


@dataclass(frozen=True)
class Setting:
    """The options that all methods share.

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
        """A schedule with updates in the first part of the training."""
        return UpdateSchedule.for_training(self.steps, every=every or self.every, until=until)


@dataclass(frozen=True)
class Entry:
    """One row of the comparison.

    Attributes:
        name: the name to show.
        make: makes the recipe of a setting; None for dense networks.
        kind: how to train it: ``"recipe"``, ``"dense"``, ``"small dense"``, ``"lottery"``, or the name of the scores to
            compute first, ``"grasp"`` or ``"synflow"``.
    """

    name: str
    make: Callable[[Setting], Recipe] | None = None
    kind: str = "recipe"


def _by(method: Any, *, every: int | None = None, until: float = 0.75, **options: Any) -> Callable[[Setting], Recipe]:
    """A function that makes the method's recipe, with the setting's sparsity and a schedule."""

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
    Entry("SRigL as published", _by(rigl.SRigLAsPublished)),
    Entry("RigL 2:4", lambda s: rigl.RigL(schedule=s.schedule(), structure=NM(2, 4), seed=s.seed)),
    Entry("RigL, 4x4 blocks", _by(rigl.RigL, structure=Blocks(4), dense=[OUTPUT])),
    Entry("gradual pruning", _by(rigl.GradualPruning, distribution=ERK)),
    Entry("gradual pruning, all layers", _by(rigl.GradualPruning, distribution=ERK, scope="global")),
    Entry("one-shot pruning", lambda s: rigl.OneShotPruning(s.sparsity, at=s.steps // 2, distribution=ERK)),
    Entry("lottery ticket", lambda s: rigl.LotteryTicket(s.sparsity, seed=s.seed), kind="lottery"),
    Entry("DNW", _by(rigl.DNW, every=1, until=1.0)),
    Entry("DNS", _by(rigl.DNS, distribution=ERK)),
)
