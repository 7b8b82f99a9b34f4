"""Warnings about plans that their users probably did not want."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from rigl_core.model.layers import Layer
from rigl_core.model.warnings import SparsityWarning
from rigl_core.plan.budget import share_budget
from rigl_core.plan.plan import Plan
from rigl_core.recipe import Recipe

LITTLE = 0.25
"""Layers that hold a smaller share of a model's parameters are little: most of the model stays dense."""
_DECIMALS = 4


def warn_about(plan: Plan) -> None:
    """Warn of layers without any connection, and of layers that are a small part of their model.

    An adapter calls it in `sparsify`, when nothing can be refused any more.
    """
    for message in (_about_empty_layers(plan), _about_other_parameters(plan)):
        if message:
            warnings.warn(message, SparsityWarning, stacklevel=3)


def highest_sparsity(recipe: Recipe, layers: Sequence[Layer]) -> float | None:
    """The highest sparsity, with four decimals, that leaves a connection in every layer; None if none does.

    Args:
        recipe: the recipe; its own sparsity does not count.
        layers: the layers.
    """
    low, high = 0, 10**_DECIMALS
    if recipe.sparsity is None or not _fits(recipe, layers, low):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(recipe, layers, middle) else (low, middle)
    return low / float(10**_DECIMALS)


def _fits(recipe: Recipe, layers: Sequence[Layer], number: int) -> bool:
    try:
        active = share_budget(replace(recipe, sparsity=number / float(10**_DECIMALS)), layers).active
    except ValueError:  # a budget that cannot be met
        return False
    return all(active)


def _about_empty_layers(plan: Plan) -> str:
    empty = [repr(layer.name) for layer, n in zip(plan.layers, plan.active, strict=True) if layer.size and not n]
    if not empty:
        return ""
    highest = highest_sparsity(plan.recipe, [layer for layer in plan.layers if layer.size])
    known = "" if highest is None else f" At a sparsity of {highest} every layer has one."
    return (
        f"the plan leaves no connection in layer {', '.join(empty)}: nothing passes through it.{known} Lower the "
        "sparsity, or give these layers one of their own (layer_sparsity, or dense)."
    )


def _about_other_parameters(plan: Plan) -> str:
    held, others = sum(layer.size for layer in plan.layers), sum(plan.others.values())
    if held >= LITTLE * (held + others):
        return ""
    largest = sorted(plan.others, key=lambda name: -plan.others[name])[:3]
    listed = ", ".join(f"{name!r} with {plan.others[name]:,}" for name in largest)
    return (
        f"the layers hold {held:,} of the model's {held + others:,} parameters; all others stay dense, such as "
        f"{listed}. Name what should be sparse in include (with its axes), or give layers to say that this is meant."
    )
