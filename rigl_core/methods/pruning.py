"""Methods that start dense, and those whose weights learn outside the mask too."""

from __future__ import annotations

from typing import Unpack

from rigl_core.methods.options import Options, make_recipe
from rigl_core.parts.criteria import MAGNITUDE
from rigl_core.parts.distributions import Uniform
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.ramps import CubicRamp
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.recipe import Recipe


def GradualPruning(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """From dense to sparse along a cubic ramp, by magnitude; what is pruned never returns (Zhu & Gupta 2017).

    The same sparsity in every layer, but for the first; ``scope="global"`` chooses over all layers. Published code
    lets masked weights learn and come back; see `DNS` for that.
    """
    return make_recipe(
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
    return make_recipe(
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
    return make_recipe(
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
    return make_recipe(
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
