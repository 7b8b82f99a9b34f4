"""The published methods, as recipes. Each is one row: distribution, initial topology, schedule, drop, grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

from rigl_core.criteria import GRADIENT, MAGNITUDE, RANDOM, Criterion
from rigl_core.distributions import Distribution
from rigl_core.drop_fractions import Cosine, DropFraction
from rigl_core.recipe import Recipe
from rigl_core.schedules import UpdateSchedule


class Options(TypedDict, total=False):
    """What every method accepts; see `Recipe` for the meanings and defaults."""

    distribution: Distribution
    initial: Criterion
    seed: int
    dense: Sequence[str]
    layer_sparsity: Mapping[str, float]
    compensate: bool


def RigL(
    sparsity: float | None = None,
    *,
    schedule: UpdateSchedule,
    drop_fraction: DropFraction = Cosine(0.3),
    **options: Unpack[Options],
) -> Recipe:
    """Drop the smallest weights, grow the largest dense gradients (Evci et al. 2020, Algorithm 1).

    The update replaces that step's gradient step. Some implementations apply both.
    """
    return Recipe(
        sparsity=sparsity,
        method="RigL",
        schedule=schedule,
        drop_fraction=drop_fraction,
        drop=MAGNITUDE,
        grow=GRADIENT,
        **options,
    )


def SET(
    sparsity: float | None = None,
    *,
    schedule: UpdateSchedule,
    drop_fraction: DropFraction = Cosine(0.3),
    **options: Unpack[Options],
) -> Recipe:
    """Drop the smallest weights, grow at random, after the gradient step (Mocanu et al. 2018).

    With the drop rule and the decaying fraction that the RigL paper uses for its comparison; the
    original drops the smallest positive and largest negative weights, a constant share at each epoch.
    """
    return Recipe(
        sparsity=sparsity,
        method="SET",
        schedule=schedule,
        drop_fraction=drop_fraction,
        drop=MAGNITUDE,
        grow=RANDOM,
        on_update="after",
        **options,
    )


def Static(sparsity: float | None = None, **options: Unpack[Options]) -> Recipe:
    """A random topology that never moves: the baseline of the RigL paper, section 4."""
    return Recipe(sparsity=sparsity, method="Static", schedule=None, **options)
