"""Methods that start dense, and methods whose weights also learn outside the mask."""

from __future__ import annotations

from typing import Unpack

from rigl_core.methods.options import Options, make_recipe
from rigl_core.model.numbers import check_integer
from rigl_core.parts.criteria import MAGNITUDE
from rigl_core.parts.distributions import Uniform
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.ramps import CubicRamp
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.recipe import Recipe


def GradualPruning(sparsity: float | None = None, *, schedule: UpdateSchedule, **options: Unpack[Options]) -> Recipe:
    """Prune by magnitude, from dense to sparse along a cubic ramp; pruned weights never return (Zhu & Gupta 2017).

    Every layer except the first, which stays dense, has the same sparsity; ``scope="global"`` compares the weights of
    all layers. In the published code masked weights learn and may return; see `DNS` for that.
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
    """Train dense, prune once by magnitude after step ``at``, and continue (Han et al. 2015, one round)."""
    at = check_integer("at", at, 0)
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
    """Discovering neural wirings: the network uses the largest weights, and all weights learn (Wortsman et al. 2019,
    algorithm 1).

    The published method updates at every step (``every=1``). Unused weights learn from the dense gradient. It needs
    memory for a dense network.
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
    """Dynamic network surgery: prune from dense, but let pruned weights learn and return (Guo et al. 2016).

    The published method prunes weights below one threshold and brings back weights above another one, given for each
    layer. Here a cubic ramp gives the counts, and ``drop_fraction`` limits how many weights an update brings back.
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
