"""Methods that choose the topology once, before or at the first step."""

from __future__ import annotations

from typing import Unpack

from rigl_core.methods.options import Options, make_recipe
from rigl_core.parts.criteria import SALIENCY, SCORES
from rigl_core.parts.ramps import CubicRamp
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.recipe import Recipe

ONCE_AT_THE_START = UpdateSchedule(end=2**30, every=2**30)
"""One update, at step 0; if the gradients of step 0 are not finite, at the first step with finite gradients."""


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

    It compares the weights of all layers, as its paper does. With ``scope="layer"`` each layer keeps the number that
    the distribution gives it, as in the RigL paper's comparison. The gradient is that of the first step's batch, in the
    dense network.
    """
    return make_recipe(
        "SNIP", sparsity, options, schedule=schedule, drop=SALIENCY, grow=None, ramp=CubicRamp(), scope="global"
    )


def GraSP(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """Before training, keep the weights that the gradient flow needs: the largest weight * Hg (Wang et al. 2020).

    Hg is the Hessian times the gradient. Give the scores to `sparsify`: each adapter's ``grasp_scores`` computes them.
    The published code ranks by -weight * Hg, scaled by the sum of all scores, and removes the largest; that is the same
    order.
    """
    return make_recipe("GraSP", sparsity, options, initial=SCORES, scope="global")


def SynFlow(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """Before training and without data, keep the weights with the most flow (Tanaka et al. 2020, algorithm 1).

    Give the scores to `sparsify`: each adapter's ``synflow_scores`` computes them, in many rounds of pruning.
    """
    return make_recipe("SynFlow", sparsity, options, initial=SCORES, scope="global")


def LotteryTicket(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """One round of a lottery: a topology by given scores, which never moves (Frankle & Carbin 2019).

    `rigl_core.methods.lottery` repeats such rounds: train, prune, rewind. Masks are scores too: with the sparsity that
    they have together, they are the topology.
    """
    return make_recipe("lottery ticket", sparsity, options, initial=SCORES, scope="global")
