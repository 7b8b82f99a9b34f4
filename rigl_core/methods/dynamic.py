"""Methods that drop and grow: the number of connections stays, their positions change."""

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
    """RigL with more exploration: the first update moves half of the connections (Liu et al. 2021, section 4).

    The paper updates until the end of the training, with ΔT ten to forty times that of RigL, so that new connections
    have time to grow. It aims at a high R_s, the share of connections that were ever active; `rigl_core.inspect`
    measures it.
    """
    return make_recipe("RigL-ITOP", sparsity, options, schedule=schedule, drop_fraction=Cosine(0.5))


def SRigL(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """RigL with the same number of connections at every output (Lasby et al. 2024).

    Each output drops and grows its own share. `SRigLAsPublished` chooses what to drop over the whole layer, and takes
    whole neurons away.
    """
    return make_recipe("SRigL", sparsity, options, schedule=schedule, structure=ConstantFanIn())


def SRigLAsPublished(
    sparsity: float | None = None, *, schedule: UpdateSchedule, gamma_sal: float = 0.3, **options: Unpack[Options]
) -> Recipe:
    """SRigL by its own rule: drop the smallest weights of the whole layer, take away neurons with few salient weights,
    and grow the others to one fan-in (Lasby et al. 2024, section 3.1).

    Salient are the weights that RigL's own update would leave active. The neurons that stay share the layer's budget,
    so their fan-in is higher; the count may fall below the planned one by less than the number of neurons. Each update
    decides anew, so a neuron can come back. By default the published code takes no outputs of the last layer away;
    here, pin that layer with ``dense`` if all of its outputs must stay.

    Args:
        sparsity: share of zero weights; see `rigl_core.Recipe`.
        schedule: when the topology moves.
        gamma_sal: the share of the planned fan-in that must be salient; the paper's networks take 0.3, its vision
            transformer 0.95.
        **options: other parts of the recipe.
    """
    return make_recipe(
        "SRigL as published",
        sparsity,
        options,
        schedule=schedule,
        structure=ConstantFanIn(),
        gamma_sal=gamma_sal,
    )


def SET(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """Drop the smallest weights, grow at random, after the gradient step (Mocanu et al. 2018).

    The drop rule and the decaying drop fraction are those of the RigL paper's comparison.
    """
    return make_recipe("SET", sparsity, options, schedule=schedule, grow=RANDOM, on_update="after")


def SETAsPublished(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """SET by its own rule: drop the smallest 30 % of the positive weights and the largest 30 % of the negative weights.

    Mocanu et al. 2018, algorithm 1, updates at the end of each epoch, always by the same fraction, until the training
    ends. A connection that one update drops and grows again starts from 0. The published code starts grown weights at
    small random values; and it drops a few weights more or fewer, since it removes all weights between two sorted
    values.
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
    """Drop the weights that changed their sign, grow as many at random, with random signs (Bellec et al. 2018,
    algorithm 1).

    The published method updates at every step (``every=1``), and adds a pull towards zero and noise to the gradient. It
    grows anywhere in the network; here, as in the RigL paper's comparison, each layer keeps its number of connections.

    Args:
        sparsity: share of zero weights; see `rigl_core.Recipe`.
        schedule: when the topology moves.
        l1: strength of the pull towards zero.
        noise: standard deviation of the noise.
        **options: other parts of the recipe.
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

    The momentum is that of the dense gradient, so every step needs the dense gradient. The connections that were
    dropped are shared among the layers in proportion to the mean |momentum| of their active weights. The published code
    takes the optimizer's momentum (with Adam: mean / root of mean square); here the recipe keeps its own momentum, with
    every optimizer.
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
    """Dynamic sparse reparameterization: drop the smallest weights over all layers; grow at random, in proportion to
    the connections that each layer keeps (Mostafa & Wang 2019, algorithm 1).

    The published method drops below a threshold, which it doubles or halves after an update that dropped too few or too
    many weights; here every update drops the exact number.
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

    A small weight with a large gradient is about to become larger, so it stays. With ``ramp=CubicRamp(initial)`` the
    network starts denser (the paper's EM&S).
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
