"""A training that begins with given masks: they become the scores of its initial topology, and the plan's counts."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from os import PathLike
from typing import Any

import numpy as np

from rigl_core.arrays import numpy_namespace
from rigl_core.arrays.connections import Connections
from rigl_core.model.layers import Layer
from rigl_core.model.patterns import matches
from rigl_core.parts.criteria import SCORES
from rigl_core.parts.distributions import Given
from rigl_core.parts.slices import arrangement_of
from rigl_core.plan import Plan, make_plan
from rigl_core.recipe import Recipe
from rigl_core.recipe.recipe import check_recipe
from rigl_core.step.update import initial_masks
from rigl_core.storage.file import load
from rigl_core.storage.topology import Mask, Topology

Initial = str | PathLike[str] | Topology | Mapping[str, Any]
"""Given masks: the path of a file, a topology, or bool arrays by layer name, in the model's own layout."""
_HIGHEST = 1 - 2**-40  # leaves no connection in any layer, and is still a sparsity


def read_initial(initial: Initial | None) -> Topology | Mapping[str, Any] | None:
    """Given masks, out of their file if they are in one.

    Raises:
        OSError, ValueError: if the file cannot be read.
        TypeError: for anything that is no `Initial`.
    """
    if initial is None or isinstance(initial, Topology | Mapping):
        return initial
    if isinstance(initial, str | PathLike):
        return load(initial)
    raise TypeError(
        f"initial is a {type(initial).__name__}: give a Topology, the path of its file, or bool arrays by layer name."
    )


def start_from(
    recipe: Recipe, layers: Sequence[Layer], initial: Initial | None, scores: Mapping[str, Any] | None = None
) -> tuple[Recipe, Mapping[str, Any] | None]:
    """The recipe and the scores of a training that begins with given masks (contract: N3).

    An adapter calls it before it plans. The recipe then starts from scores, which are the masks, and gives every layer
    as many connections as its mask has.

    Args:
        recipe: the user's.
        layers: of the model.
        initial: the given masks. None changes nothing.
        scores: the user's, which must be None if there are masks.

    Raises:
        OSError, TypeError, ValueError: if the masks cannot be read, or do not fit the layers or the recipe.
    """
    if (given := read_initial(initial)) is None:
        return recipe, scores
    check_recipe(recipe)
    if scores is not None:
        raise ValueError("scores and initial are both given: leave out scores, as the masks are the topology.")
    if recipe.ramp is not None:
        raise ValueError(
            f"initial is given, and {recipe.method} has a ramp, which begins with numbers of its own: leave initial "
            "out, or take a recipe without a ramp."
        )
    masks = _masks(given, layers)
    counts = [int(np.count_nonzero(masks[layer.name])) for layer in layers]
    own = replace(recipe, initial=SCORES)
    if recipe.structure.sparsity is None:
        own = _with_counts(own, layers, counts)
    plan = make_plan(own, layers)
    _check_counts(plan, counts)
    _check_structure(plan, masks)
    return own, masks


def _masks(given: Topology | Mapping[str, Any], layers: Sequence[Layer]) -> Mapping[str, Mask]:
    try:
        return (given.for_layers(layers) if isinstance(given, Topology) else Topology(tuple(layers), given)).masks
    except ValueError as error:
        raise ValueError(f"initial does not fit the model: {error}") from error


def _with_counts(recipe: Recipe, layers: Sequence[Layer], counts: Sequence[int]) -> Recipe:
    """The recipe with the masks' own numbers of connections; layers outside its budget stay outside."""
    own = dict(recipe.layer_sparsity)
    pinned = set(recipe.distribution.pinned(layers))
    said = {layer.name for layer in layers if matches(layer.name, (*recipe.dense, *own))}
    by_name = {layer.name: (count, layer.size) for layer, count in zip(layers, counts, strict=True)}
    fixed = [(glob.escape(name), _sparsity(*by_name[name])) for name in by_name if name in pinned - said]
    free = {name: count for name, (count, _) in by_name.items() if name not in pinned | said}
    says_numbers = recipe.sparsity is not None and not isinstance(recipe.distribution, Given)  # those of other masks
    if says_numbers or not free:
        plan = make_plan(recipe, layers)
        if plan.initial_active == tuple(counts):
            return recipe
        if (planned := sum(plan.initial_active)) != sum(counts):
            raise ValueError(
                f"initial has {sum(counts):,} active weights, and the recipe begins with {planned:,}: leave sparsity "
                "out, to train with as many as the masks have."
            )
    size = sum(by_name[name][1] for name in free)
    return replace(
        recipe,
        sparsity=_sparsity(sum(free.values()), size) if free else None,
        distribution=Given(free),
        layer_sparsity=(*own.items(), *fixed),
        compensate=False,
    )


def _sparsity(active: int, size: int) -> float:
    """A sparsity that gives exactly this number of active weights."""
    return min(float(1 - Fraction(active, size)), _HIGHEST) if size else 0.0


def _check_counts(plan: Plan, counts: Sequence[int]) -> None:
    for layer, planned, count in zip(plan.layers, plan.initial_active, counts, strict=True):
        if planned != count:
            raise ValueError(
                f"initial has {count:,} active weights in layer {layer.name!r}, and the recipe begins with "
                f"{planned:,} there (dense, layer_sparsity or structure): change the recipe, or the masks."
            )


def _check_structure(plan: Plan, masks: Mapping[str, Mask]) -> None:
    """Refuse masks that are not of the recipe's structure."""
    rule = plan.recipe.rule
    for i in plan.sparse_layers:
        layer = plan.layers[i]
        if arrangement_of(rule.structure, layer) is None:
            continue
        scores = masks[layer.name].reshape(-1).astype(np.float32)
        connections = Connections(scores, scores=scores, layer=layer)
        (chosen,) = initial_masks(rule, [connections], [plan.initial_active[i]], xp=numpy_namespace)
        if not np.array_equal(chosen, scores > 0):
            raise ValueError(
                f"initial has a mask of layer {layer.name!r} that is not of the structure {rule.structure!r}: give "
                "masks that are, or a recipe without a structure."
            )
