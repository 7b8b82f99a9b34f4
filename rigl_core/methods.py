"""The published methods, as recipes. Each is one row: what it starts from, when it moves, what it drops and grows.

Every part can be given again, to see what it is worth: ``RigL(0.9, schedule=..., grow=RANDOM)``. STR, L0 and
variational dropout are not here: they learn gates or thresholds through the loss, a re-parameterization of the network
rather than a topology. Neither are pruning thresholds that grow (Narang et al. 2017; Ström 1997): how many weights
they leave is a result there, and given here.
"""

from __future__ import annotations

from typing import Any, Literal, Unpack

from rigl_core.criteria import (
    MAGNITUDE,
    MAGNITUDE_BY_SIGN,
    MOMENTUM,
    RANDOM,
    SALIENCY,
    SCORES,
    SIGN,
    magnitude_and_gradient,
)
from rigl_core.distributions import Uniform
from rigl_core.drop_fractions import Constant, Cosine
from rigl_core.options import Options
from rigl_core.ramps import CubicRamp
from rigl_core.recipe import Recipe
from rigl_core.schedules import UpdateSchedule
from rigl_core.structures import ConstantFanIn

ONCE_AT_THE_START = UpdateSchedule(end=2**30, every=2**30)
"""One update at step 0; if its gradients are not finite, at the first step whose gradients are."""


def Static(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """A random topology that never moves: the baseline of the RigL paper, section 4."""
    return _recipe("Static", sparsity, options)


def RigL(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """Drop the smallest weights, grow the largest dense gradients (Evci et al. 2020, Algorithm 1).

    The update replaces that step's gradient step. Some implementations apply both.
    """
    return _recipe("RigL", sparsity, options, schedule=schedule)


def RigLITOP(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """RigL that explores more: half of the connections move at first (Liu et al. 2021, section 4).

    The paper moves until the end of the training, with ΔT ten to forty times that of RigL, so that new connections
    have time to grow. What counts is R_s, the share of connections that were ever active: `rigl_core.inspect`.
    """
    return _recipe("RigL-ITOP", sparsity, options, schedule=schedule, drop_fraction=Cosine(0.5))


def SRigL(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """RigL with the same number of connections at every output (Lasby et al. 2024).

    The published method chooses what to drop in the whole layer and takes away whole neurons; here each output drops
    and grows its share.
    """
    return _recipe("SRigL", sparsity, options, schedule=schedule, structure=ConstantFanIn())


def SET(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """Drop the smallest weights, grow at random, after the gradient step (Mocanu et al. 2018).

    With the drop rule and the decaying fraction that the RigL paper uses for its comparison.
    """
    return _recipe("SET", sparsity, options, schedule=schedule, grow=RANDOM, on_update="after")


def SETAsPublished(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """SET by its own rule: of the smallest positive and largest negative weights a share of 0.3 each.

    Mocanu et al. 2018, algorithm 1: at the end of each epoch, constantly, until the training ends. What is dropped
    and drawn again at once starts anew. The published code starts grown weights at small random values, and its
    drop counts are off by some: it removes everything between two sorted values.
    """
    return _recipe(
        "SET as published",
        sparsity,
        options,
        schedule=schedule,
        drop_fraction=Constant(0.3),
        drop=MAGNITUDE_BY_SIGN,
        grow=RANDOM,
        regrown="reset",
        on_update="after",
    )


def DeepR(
    sparsity: float | None = None,
    *,
    schedule: UpdateSchedule,
    l1: float = 1e-4,
    noise: float = 0.0,
    **options: Unpack[Options],
) -> Recipe:
    """Drop what changed its sign, grow as many at random, with a random sign (Bellec et al. 2018, algorithm 1).

    As published at every step (``every=1``), with a pull towards zero and noise in the gradient step. Deep R grows
    anywhere in the network; here, as in the RigL paper's comparison, each layer keeps its number.
    """
    return _recipe(
        "Deep R",
        sparsity,
        options,
        schedule=schedule,
        drop=SIGN,
        grow=RANDOM,
        regrown="reset",
        l1=l1,
        noise=noise,
        on_update="after",
    )


def SNFS(
    sparsity: float | None = None,
    *,
    schedule: UpdateSchedule,
    redistribution: Literal["mean_score"] | None = "mean_score",
    **options: Unpack[Options],
) -> Recipe:
    """Sparse networks from scratch: drop the smallest weights, grow the largest momentum (Dettmers & Zettlemoyer 2019).

    The momentum is one of the dense gradient, so that every step needs it. Layers get what was dropped in proportion
    to the mean |momentum| of their active weights. The published code takes the optimizer's own momentum, and
    with Adam its mean over the root of its square; here it is one of its own, whatever the optimizer.
    """
    return _recipe(
        "SNFS",
        sparsity,
        options,
        schedule=schedule,
        drop_fraction=Cosine(0.5),
        grow=MOMENTUM,
        redistribution=redistribution,
        on_update="after",
    )


def DSR(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """Dynamic sparse reparameterization: drop the smallest weights of all layers, by one threshold for all; grow at
    random, more where more is left (Mostafa & Wang 2019, algorithm 1).

    The published threshold doubles or halves from update to update, to let about as many weights fall as wanted; here
    it is the one that lets exactly as many fall.
    """
    return _recipe(
        "DSR",
        sparsity,
        options,
        schedule=schedule,
        drop_fraction=Constant(0.1),
        grow=RANDOM,
        scope="global",
        redistribution="survivors",
        regrown="reset",
        on_update="after",
    )


def MEST(
    sparsity: float | None = None, *, schedule: UpdateSchedule, share: float = 1.0, **options: Unpack[Options]
) -> Recipe:
    """Drop the smallest |weight| + share * |gradient|, grow at random (Yuan et al. 2021, section 3.2: EM).

    The gradients of active weights tell which of the small ones are about to grow. With ``ramp=CubicRamp(initial)``
    it starts denser (the paper's EM&S).
    """
    return _recipe(
        "MEST",
        sparsity,
        options,
        schedule=schedule,
        drop=magnitude_and_gradient(share),
        grow=RANDOM,
        on_update="after",
    )


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
    return _recipe(
        "SNIP", sparsity, options, schedule=schedule, drop=SALIENCY, grow=None, ramp=CubicRamp(), scope="global"
    )


def GraSP(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """Before training, keep what the gradient flow needs: the largest weight * (Hessian gradient) (Wang et al. 2020).

    Give `sparsify` the scores: each adapter's ``saliency.grasp`` computes them. The published code ranks by
    -weight * Hg and removes the largest, after scaling by their sum: the same order.
    """
    return _recipe("GraSP", sparsity, options, initial=SCORES, scope="global")


def SynFlow(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """Before training and without data, keep what carries the most flow (Tanaka et al. 2020, algorithm 1).

    Give `sparsify` the scores: each adapter's ``saliency.synflow`` computes them, pruning again and again.
    """
    return _recipe("SynFlow", sparsity, options, initial=SCORES, scope="global")


def LotteryTicket(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """One round of a lottery: a topology from given scores, that never moves (Frankle & Carbin 2019).

    `rigl_core.lottery` trains, prunes and rewinds, round after round.
    """
    return _recipe("lottery ticket", sparsity, options, initial=SCORES, scope="global")


def GradualPruning(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """From dense to sparse along a cubic ramp, by magnitude; what is pruned never returns (Zhu & Gupta 2017).

    The same sparsity in every layer, but for the first; ``scope="global"`` chooses over all layers. Published code
    lets masked weights learn and come back; see `DNS` for that.
    """
    return _recipe(
        "gradual pruning",
        sparsity,
        options,
        schedule=schedule,
        distribution=Uniform(),
        grow=None,
        ramp=CubicRamp(),
        on_update="after",
    )


def OneShotPruning(sparsity: float | None = None, *, at: int, **options: Unpack[Options]) -> Recipe:
    """Train dense, prune once by magnitude after step ``at``, and train on (Han et al. 2015, one round)."""
    schedule = UpdateSchedule(begin=at, end=at + 1, every=1)
    return _recipe(
        "one-shot pruning",
        sparsity,
        options,
        schedule=schedule,
        distribution=Uniform(),
        grow=None,
        ramp=CubicRamp(),
        on_update="after",
    )


def DNW(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """Discovering neural wirings: the largest weights are seen, all of them learn (Wortsman et al. 2019, algorithm 1).

    As published at every step (``every=1``). The gradient of an unseen weight is that of the network as if it were
    seen. Needs memory for dense weights.
    """
    return _recipe(
        "DNW",
        sparsity,
        options,
        schedule=schedule,
        drop_fraction=Constant(1.0),
        grow=MAGNITUDE,
        initial=MAGNITUDE,
        shadow=True,
        on_update="after",
    )


def DNS(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """Dynamic network surgery: prune from dense, but let pruned weights learn and come back (Guo et al. 2016).

    The published method prunes below one threshold and splices above another, given for each layer; here the counts
    of a cubic ramp take their place, and ``drop_fraction`` bounds how much is spliced at once.
    """
    return _recipe(
        "DNS",
        sparsity,
        options,
        schedule=schedule,
        drop_fraction=Constant(0.3),
        distribution=Uniform(),
        grow=MAGNITUDE,
        ramp=CubicRamp(),
        shadow=True,
        on_update="after",
    )


def _recipe(method: str, sparsity: float | None, options: Options, **parts: Any) -> Recipe:
    """The method's parts; what the user gives goes before them."""
    return Recipe(sparsity=sparsity, **{"method": method, **parts, **options})
