"""The plan: a recipe for given layers, with every count an exact integer, made once before training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from rigl_core.counts import active_count, largest_remainder
from rigl_core.distributions import ScaledByShape
from rigl_core.drop_fractions import drop_counts
from rigl_core.inspect import SparsityTable
from rigl_core.layers import Layer, check_layers
from rigl_core.patterns import check_patterns, first_match, matches
from rigl_core.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """What a recipe means for a model. ``print(plan)`` shows it as a table.

    Attributes:
        recipe: the recipe.
        layers: the layers, in the order given.
        active: active weights of each layer; they never change.
        densities: the real-valued densities of the distribution, which ``active`` rounds to whole weights.
        drop_counts: read-only int32 array (updates, layers): how many connections each update moves.
        epsilon: the scale that ER and ERK solve for; None for other distributions.
    """

    recipe: Recipe
    layers: tuple[Layer, ...]
    active: tuple[int, ...]
    densities: tuple[float, ...]
    drop_counts: npt.NDArray[np.int32] = field(compare=False, repr=False)
    epsilon: float | None = None

    @property
    def sparse_layers(self) -> tuple[int, ...]:
        """The positions of the layers that are not dense: the ones with a mask that matters."""
        return tuple(i for i, layer in enumerate(self.layers) if self.active[i] < layer.size)

    @property
    def table(self) -> SparsityTable:
        """The planned densities, layer by layer."""
        dense = len(self.layers) - len(self.sparse_layers)
        parts = [self.recipe.method, self.recipe.distribution.kind]
        if self.recipe.sparsity is not None:
            parts.insert(1, f"sparsity {self.recipe.sparsity}")
        if self.epsilon is not None:
            parts.append(f"epsilon = {self.epsilon:.4f}")
        parts.append(f"{len(self.layers)} layers, {dense} of them dense")
        return SparsityTable(self.layers, self.active, self.densities, title=", ".join(parts))

    def __str__(self) -> str:
        return str(self.table)


def make_plan(recipe: Recipe, layers: Sequence[Layer]) -> Plan:
    """Share the recipe's budget among the layers and tabulate the drop counts.

    Raises:
        TypeError: if ``recipe`` is no recipe.
        ValueError: if there is nothing to sparsify, a pattern matches no layer, or the budget cannot be
            met; the message then says which sparsities can.
    """
    Recipe.check(recipe)
    layers = check_layers(layers)
    pinned = _pinned_counts(recipe, layers)
    free = [layer for layer in layers if layer.name not in pinned]
    budget = _budget(recipe, layers, free, sum(pinned.values()))
    epsilon = None
    counts = dict(pinned)
    densities = {layer.name: Fraction(pinned[layer.name], layer.size or 1) for layer in layers if layer.name in pinned}
    if free:
        densities |= _free_densities(recipe, free, budget)
        shares = [densities[layer.name] * layer.size for layer in free]
        counts |= {layer.name: n for layer, n in zip(free, largest_remainder(shares, budget), strict=True)}
        if isinstance(recipe.distribution, ScaledByShape):
            epsilon = float(recipe.distribution.epsilon(free, budget))
    return Plan(
        recipe,
        layers,
        active=tuple(counts[layer.name] for layer in layers),
        densities=tuple(float(densities[layer.name]) for layer in layers),
        drop_counts=_drop_table(recipe, [counts[layer.name] for layer in layers]),
        epsilon=epsilon,
    )


def _pinned_counts(recipe: Recipe, layers: Sequence[Layer]) -> dict[str, int]:
    """Active counts of the layers outside the budget; the user's word goes before the distribution's."""
    names = [layer.name for layer in layers]
    own: Mapping[str, float] = dict(recipe.layer_sparsity)
    check_patterns("dense", recipe.dense, names)
    check_patterns("layer_sparsity", own, names)
    sparsities = dict(recipe.distribution.pinned(layers))
    for name in names:
        sparsity = 0.0 if matches(name, recipe.dense) else first_match(name, own)
        if sparsity is not None:
            sparsities[name] = sparsity
    sizes = {layer.name: layer.size for layer in layers}
    return {name: active_count(sparsities[name], sizes[name]) for name in names if name in sparsities}


def _budget(recipe: Recipe, layers: Sequence[Layer], free: Sequence[Layer], pinned: int) -> int:
    """Active weights that the free layers share."""
    free_size = sum(layer.size for layer in free)
    if recipe.sparsity is None:
        if free:
            raise ValueError(
                f"sparsity is missing, and layer {free[0].name!r} has none of its own: give the recipe a sparsity."
            )
        return 0
    if not free:
        raise ValueError(
            f"sparsity={recipe.sparsity} has nothing to sparsify: every layer is pinned (by dense, "
            f"layer_sparsity or the {recipe.distribution.kind} distribution). Pin fewer layers; "
            "Uniform(first_dense=False) frees the first."
        )
    if not recipe.compensate:
        return active_count(recipe.sparsity, free_size)
    size = sum(layer.size for layer in layers)
    budget = active_count(recipe.sparsity, size) - pinned
    if budget < 0:
        highest = math.floor((1 - Fraction(pinned, size)) * 10**6) / 10**6
        raise ValueError(
            f"sparsity={recipe.sparsity} cannot be met: the pinned layers alone hold {pinned:,} of {size:,} weights. "
            f"The highest sparsity possible is {highest}; lower it, or pin fewer layers."
        )
    if budget > free_size:
        lowest = math.ceil((1 - Fraction(pinned + free_size, size)) * 10**6) / 10**6
        raise ValueError(
            f"sparsity={recipe.sparsity} cannot be met: with the pinned layers as they are, even dense layers "
            f"elsewhere leave too many zeros. The lowest sparsity possible is {lowest}; raise it, or pin fewer layers."
        )
    return budget


def _free_densities(recipe: Recipe, free: Sequence[Layer], budget: int) -> dict[str, Fraction]:
    given = recipe.distribution.densities(free, budget)
    densities = {layer.name: Fraction(density) for layer, density in zip(free, given, strict=True)}
    for name, density in densities.items():
        if not 0 <= density <= 1:
            raise ValueError(
                f"distribution {recipe.distribution.kind!r} gives layer {name!r} the density {float(density)}: "
                "it must be in [0, 1]."
            )
    return densities


def _drop_table(recipe: Recipe, active: Sequence[int]) -> npt.NDArray[np.int32]:
    if recipe.schedule is None:
        table = np.zeros((0, len(active)), np.int32)
    else:
        table = drop_counts(recipe.schedule, recipe.drop_fraction, active)
    table.flags.writeable = False
    return table
