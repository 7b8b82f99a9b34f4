"""The options that every method accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from rigl_core.parts.criteria import Criterion
from rigl_core.parts.distributions import Distribution
from rigl_core.parts.drop_fractions import DropFraction
from rigl_core.parts.grown import GrownWeights
from rigl_core.parts.ramps import Ramp
from rigl_core.parts.structures import Structure
from rigl_core.recipe import Recipe


class Options(TypedDict, total=False):
    """Parts of a recipe that a user can give to any method; `rigl_core.Recipe` explains them.

    To change the other fields of a recipe, use `dataclasses.replace` on the recipe.
    """

    method: str
    distribution: Distribution
    drop_fraction: DropFraction
    drop: Criterion
    grow: Criterion | None
    initial: Criterion
    ramp: Ramp | None
    scope: Literal["layer", "global"]
    structure: Structure
    floor: int
    grown: GrownWeights
    regrown: Literal["keep", "reset"]
    momentum: float
    shadow: bool
    on_update: Literal["replace", "after"]
    seed: int
    dense: Sequence[str]
    layer_sparsity: Mapping[str, float]
    compensate: bool


def make_recipe(method: str, sparsity: float | None, options: Options, **parts: Any) -> Recipe:
    """The recipe of a method; the user's options replace the method's own parts."""
    return Recipe(sparsity=sparsity, **{"method": method, **parts, **options})
