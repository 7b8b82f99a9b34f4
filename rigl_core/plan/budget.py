"""How a recipe's budget is shared among layers, exactly to the last weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rigl_core.model.layers import Layer
from rigl_core.model.numbers import active_count, check_sparsity, decimal, largest_remainder
from rigl_core.model.patterns import check_patterns, first_match, matches
from rigl_core.parts.distributions import ScaledByShape
from rigl_core.parts.slices import arrangement_of
from rigl_core.recipe import Recipe

_DECIMALS = 12


@dataclass(frozen=True)
class Shared:
    """The result of `share_budget`.

    Attributes:
        active: active weights of each layer.
        densities: the real-valued density of each layer, before ``active`` was rounded to whole weights.
        pinned: the names of the layers outside the budget.
        epsilon: the scale that ER and ERK solve for; None for other distributions.
    """

    active: tuple[int, ...]
    densities: tuple[float, ...]
    pinned: frozenset[str]
    epsilon: float | None = None


Sparsity = Callable[[float], float]
"""Maps a final sparsity to the sparsity at some time of the ramp."""


def share_budget(recipe: Recipe, layers: Sequence[Layer], progress: float = 1.0) -> Shared:
    """Share the budget among the layers, at some time of a recipe's ramp.

    Args:
        recipe: the recipe.
        layers: all layers, in the model's order.
        progress: the time on the recipe's ramp, from 0 to 1 (`rigl_core.parts.ramps.Ramp`); 1 is its end.

    Raises:
        ValueError: if there is nothing to sparsify, a pattern matches no layer, the structure does not fit a layer,
            or the budget cannot be met; the message then says which sparsities can.
    """

    def sparsity_of(final: float) -> float:
        if recipe.ramp is None:
            return final
        sparsity = recipe.ramp.sparsity(progress, final)
        if sparsity == final:
            return final
        return check_sparsity(float(round(decimal(sparsity, "ramp"), _DECIMALS)), "ramp")

    counts = _pinned_counts(recipe, layers, sparsity_of)
    pinned = frozenset(counts)
    free = [layer for layer in layers if layer.name not in counts]
    budget = _budget(recipe, layers, free, sum(counts.values()), sparsity_of)
    densities = {layer.name: Fraction(counts[layer.name], layer.size or 1) for layer in layers if layer.name in counts}
    epsilon = None
    if free:
        densities |= _free_densities(recipe, free, budget)
        shares = [densities[layer.name] * layer.size for layer in free]
        counts |= {layer.name: n for layer, n in zip(free, largest_remainder(shares, budget), strict=True)}
        if isinstance(recipe.distribution, ScaledByShape) and progress == 1:
            epsilon = float(recipe.distribution.epsilon(free, budget))
    return Shared(
        tuple(_fitting(recipe, layer, counts[layer.name]) for layer in layers),
        tuple(float(densities[layer.name]) for layer in layers),
        pinned,
        epsilon,
    )


def _fitting(recipe: Recipe, layer: Layer, active: int) -> int:
    """The count nearest to ``active`` that the recipe's structure allows; a dense layer keeps its count."""
    if active == layer.size:
        return active
    arrangement = arrangement_of(recipe.structure, layer)
    return active if arrangement is None else arrangement.rounded(active)


def _pinned_counts(recipe: Recipe, layers: Sequence[Layer], sparsity_of: Sparsity) -> dict[str, int]:
    """Active counts of the layers outside the budget, by name; the user's sparsities win over the distribution's."""
    names = [layer.name for layer in layers]
    own: Mapping[str, float] = dict(recipe.layer_sparsity)
    check_patterns("dense", recipe.dense, names)
    check_patterns("layer_sparsity", own, names)
    by_structure = recipe.structure.sparsity
    if by_structure is None:
        sparsities = dict(recipe.distribution.pinned(layers))
    else:
        sparsities = dict.fromkeys(names, by_structure)
    for name in names:
        sparsity = 0.0 if matches(name, recipe.dense) else first_match(name, own)
        if sparsity is not None:
            sparsities[name] = sparsity
    sizes = {layer.name: layer.size for layer in layers}
    return {name: active_count(sparsity_of(sparsities[name]), sizes[name]) for name in names if name in sparsities}


def _budget(recipe: Recipe, layers: Sequence[Layer], free: Sequence[Layer], pinned: int, sparsity_of: Sparsity) -> int:
    """The number of active weights that the free layers, those inside the budget, share."""
    free_size = sum(layer.size for layer in free)
    if recipe.sparsity is None:
        if free:
            raise ValueError(
                f"sparsity is missing, and layer {free[0].name!r} has none of its own: give the recipe a sparsity."
            )
        return 0
    if recipe.structure.sparsity is not None:
        raise ValueError(
            f"sparsity={recipe.sparsity} is given, and the {recipe.structure.kind} structure has its own: leave it out."
        )
    if not free:
        raise ValueError(
            f"sparsity={recipe.sparsity} has nothing to sparsify: every layer is pinned (by dense, "
            f"layer_sparsity or the {recipe.distribution.kind} distribution). Pin fewer layers; "
            "Uniform(first_dense=False) frees the first."
        )
    if not recipe.compensate:
        return active_count(sparsity_of(recipe.sparsity), free_size)
    size = sum(layer.size for layer in layers)
    budget = active_count(sparsity_of(recipe.sparsity), size) - pinned
    _check_compensated(recipe, budget, pinned, free_size, size)
    return budget


def _check_compensated(recipe: Recipe, budget: int, pinned: int, free_size: int, size: int) -> None:
    """Refuse a budget that the free layers cannot meet."""
    if budget < 0:
        highest = math.floor((1 - Fraction(pinned, size)) * 10**6) / 10**6
        raise ValueError(
            f"sparsity={recipe.sparsity} cannot be met: the pinned layers alone hold {pinned:,} of {size:,} weights. "
            f"The highest sparsity possible is {highest}; lower it, or pin fewer layers."
        )
    if budget > free_size:
        lowest = math.ceil((1 - Fraction(pinned + free_size, size)) * 10**6) / 10**6
        raise ValueError(
            f"sparsity={recipe.sparsity} cannot be met: the pinned layers have too many zeros, even if all others are "
            f"dense. The lowest sparsity possible is {lowest}; raise it, or pin fewer layers."
        )


def _free_densities(recipe: Recipe, free: Sequence[Layer], budget: int) -> dict[str, Fraction]:
    given = recipe.distribution.densities(free, budget)
    densities = {layer.name: Fraction(density) for layer, density in zip(free, given, strict=True)}
    for name, density in densities.items():
        if not 0 <= density.numerator <= density.denominator:
            raise ValueError(
                f"distribution {recipe.distribution.kind!r} gives layer {name!r} the density {float(density)}: "
                "it must be in [0, 1]."
            )
    return densities
