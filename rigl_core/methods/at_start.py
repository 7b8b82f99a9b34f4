"""Methods whose topology is chosen once, before or at the first step."""

from __future__ import annotations

from typing import Unpack

from rigl_core.methods.options import Options, make_recipe
from rigl_core.parts.criteria import SALIENCY, SCORES
from rigl_core.parts.ramps import CubicRamp
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.recipe import Recipe

ONCE_AT_THE_START = UpdateSchedule(end=2**30, every=2**30)
"""One update at step 0; if its gradients are not finite, at the first step whose gradients are."""


def Static(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """A random topology that never moves: the baseline of the RigL paper, section 4."""
    return make_recipe("Static", sparsity, options)


def SNIP(
    sparsity: float | None = None,
    *,
    schedule: UpdateSchedule = ONCE_AT_THE_START,
    **options: Unpack[Options],
) -> Recipe:
    """Prune once, before the first step, by |weight * gradient| (Lee et al. 2019).

    Over all layers, as in its paper; with ``scope="layer"`` each keeps what the distribution gives it, as the RigL
    paper compares. The gradient is that of the first step's batch, on the dense network.
    """
    return make_recipe(
        "SNIP", sparsity, options, schedule=schedule, drop=SALIENCY, grow=None, ramp=CubicRamp(), scope="global"
    )


def GraSP(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """Before training, keep what the gradient flow needs: the largest weight * (Hessian gradient) (Wang et al. 2020).

    Give `sparsify` the scores: each adapter's ``grasp_scores`` computes them. The published code ranks by
    -weight * Hg and removes the largest, after scaling by their sum: the same order.
    """
    return make_recipe("GraSP", sparsity, options, initial=SCORES, scope="global")


def SynFlow(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """Before training and without data, keep what carries the most flow (Tanaka et al. 2020, algorithm 1).

    Give `sparsify` the scores: each adapter's ``synflow_scores`` computes them, pruning again and again.
    """
    return make_recipe("SynFlow", sparsity, options, initial=SCORES, scope="global")


def LotteryTicket(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """One round of a lottery: a topology from given scores, that never moves (Frankle & Carbin 2019).

    `rigl_core.methods.lottery` trains, prunes and rewinds, round after round.
    """
    return make_recipe("lottery ticket", sparsity, options, initial=SCORES, scope="global")
