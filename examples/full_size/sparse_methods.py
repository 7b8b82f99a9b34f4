"""The methods to compare, as recipes. Their drop fraction is the default and the paper's, a cosine from 0.3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

from experiments import Experiment
from rigl_core import (
    GRADIENT_BY_OUTPUT,
    SET,
    SNIP,
    ErdosRenyiKernel,
    GradualPruning,
    Recipe,
    RigL,
    SRigL,
    Static,
    Uniform,
    UpdateSchedule,
)

DENSE = "dense"
METHODS = (DENSE, "static", "snip", "set", "rigl", "rigl-by-output", "srigl", "pruning")

DISTRIBUTIONS: Mapping[str, ErdosRenyiKernel | Uniform] = {"erk": ErdosRenyiKernel(), "uniform": Uniform()}
"""The paper's two; uniform leaves the first layer dense."""

PRUNING_EVERY = 10
"""Steps between two prunings, in ΔT: 1,000 steps in the authors' code."""


class Shared(TypedDict):
    """The parts that all recipes have: the layers' densities, the layers that stay dense, and the seed."""

    distribution: ErdosRenyiKernel | Uniform
    dense: Sequence[str]
    seed: int


def make_recipe(
    name: str, sparsity: float, experiment: Experiment, steps: int, every: int, **options: Unpack[Shared]
) -> Recipe:
    """The recipe of a method.

    Args:
        name: one of `METHODS`, but not dense.
        sparsity: share of zero weights.
        experiment: how the network is trained.
        steps: optimizer steps of the whole training.
        every: steps between two updates (ΔT).
        **options: see `Shared`.

    Raises:
        ValueError: naming the parameter, for an unknown method or a recipe that cannot be.
    """
    schedule = UpdateSchedule(end=int(experiment.updates_end * steps), every=every)
    match name:
        case "static":
            return Static(sparsity, **options)
        case "snip":  # reads the gradient of the first batch; compared with the densities that the others have
            return SNIP(sparsity, scope="layer", **options)
        case "set":
            return SET(sparsity, schedule=schedule, **options)
        case "rigl":
            return RigL(sparsity, schedule=schedule, **options)
        case "rigl-by-output":
            return RigL(sparsity, schedule=schedule, grow=GRADIENT_BY_OUTPUT, **options)
        case "srigl":
            return SRigL(sparsity, schedule=schedule, **options)
        case "pruning":
            return GradualPruning(sparsity, schedule=_pruning(experiment, steps, every), **options)
    raise ValueError(f"name is {name!r}: use one of {', '.join(METHODS[1:])}.")


def _pruning(experiment: Experiment, steps: int, every: int) -> UpdateSchedule:
    begin, end = (int(share * steps) for share in experiment.pruning)
    return UpdateSchedule(begin=begin, end=max(end, begin + 1), every=PRUNING_EVERY * every)
