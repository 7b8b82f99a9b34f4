"""Methods that drop and grow: the number of connections stays, their places change."""

from __future__ import annotations

from typing import Literal, Unpack

from rigl_core.methods.options import Options, make_recipe
from rigl_core.parts.criteria import MAGNITUDE_BY_SIGN, MOMENTUM, RANDOM, SIGN, magnitude_and_gradient
from rigl_core.parts.drop_fractions import Constant, Cosine
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import ConstantFanIn
from rigl_core.recipe import Recipe


def RigL(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """Drop the smallest weights, grow the largest dense gradients (Evci et al. 2020, Algorithm 1).

    The update replaces that step's gradient step. Some implementations apply both.
    """
    return make_recipe("RigL", sparsity, options, schedule=schedule)


def RigLITOP(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """RigL that explores more: half of the connections move at first (Liu et al. 2021, section 4).

    The paper moves until the end of the training, with ΔT ten to forty times that of RigL, so that new connections
    have time to grow. What counts is R_s, the share of connections that were ever active: `rigl_core.inspect`.
    """
    return make_recipe("RigL-ITOP", sparsity, options, schedule=schedule, drop_fraction=Cosine(0.5))


def SRigL(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """RigL with the same number of connections at every output (Lasby et al. 2024).

    The published method chooses what to drop in the whole layer and takes away whole neurons; here each output drops
    and grows its share.
    """
    return make_recipe("SRigL", sparsity, options, schedule=schedule, structure=ConstantFanIn())


def SET(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """Drop the smallest weights, grow at random, after the gradient step (Mocanu et al. 2018).

    With the drop rule and the decaying fraction that the RigL paper uses for its comparison.
    """
    return make_recipe("SET", sparsity, options, schedule=schedule, grow=RANDOM, on_update="after")


def SETAsPublished(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """SET by its own rule: of the smallest positive and largest negative weights a share of 0.3 each.

    Mocanu et al. 2018, algorithm 1: at the end of each epoch, constantly, until the training ends. What is dropped
    and drawn again at once starts anew. The published code starts grown weights at small random values, and its
    drop counts are off by some: it removes everything between two sorted values.
    """
    return make_recipe(
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
    return make_recipe(
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
    return make_recipe(
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
    return make_recipe(
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
    return make_recipe(
        "MEST",
        sparsity,
        options,
        schedule=schedule,
        drop=magnitude_and_gradient(share),
        grow=RANDOM,
        on_update="after",
    )
