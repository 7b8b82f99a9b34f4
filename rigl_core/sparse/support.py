"""Which recipes and layers can be held as active weights alone."""

from __future__ import annotations

from rigl_core.model.layers import Layer
from rigl_core.parts.criteria import GRADIENT, RANDOM
from rigl_core.parts.structures import Unstructured
from rigl_core.recipe import Recipe

PAYS_FROM = 1 << 16
"""The connections of the smallest layer that is faster truly sparse: in smaller ones the calls cost too much."""
PAYS_BELOW = 0.25
"""The highest density at which a truly sparse layer is faster than a dense one."""


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe whose updates read more than active weights and a gradient that is seen once.

    Raises:
        ValueError: with the reason and the remedy.
    """
    if (reason := _why_not(recipe)) is not None:
        raise ValueError(f"storage is 'active', but {recipe.method} {reason}: use storage='masks'.")


def _why_not(recipe: Recipe) -> str | None:
    rule = recipe.rule
    if not rule.moves:
        return None
    for kind, reason in {
        "momentum": "reads a momentum of the dense gradient at every step",
        "shadow": "lets inactive weights learn, so it needs all of them",
        "initial": "gives grown connections their initial weights, so it needs all of these",
    }.items():
        if kind in rule.memories:
            return reason
    if rule.scope == "global":
        return "chooses from all layers together"
    if rule.redistribution is not None:
        return "moves connections from layer to layer"
    if not isinstance(rule.structure, Unstructured):
        return "chooses connections in groups"
    if rule.grow not in (None, GRADIENT, RANDOM):
        return f"grows by {rule.grow.name!r}, which is neither the gradient nor random"
    return None


def why_not_layer(layer: Layer) -> str | None:
    """Why a layer cannot be held as active weights; None if it can.

    It must be a matrix, whose inputs are one axis and whose outputs are the other.
    """
    if len(layer.shape) != 2 or layer.groups != 1 or layer.depthwise:
        return "is not a matrix"
    if sorted(layer.in_axes + layer.out_axes) != [0, 1] or len(layer.in_axes) != 1:
        return "has no known axis of inputs and axis of outputs (give them by axes)"
    return None


def why_not_worth(layer: Layer, active: int) -> str | None:
    """Why a layer would not be faster truly sparse; None if it would.

    Args:
        layer: the layer.
        active: its planned number of active connections.
    """
    if layer.size < PAYS_FROM:
        return f"has {layer.size:,} connections, and products pay from {PAYS_FROM:,} on"
    if active > PAYS_BELOW * layer.size:
        return f"has a density of {active / layer.size:.2f}, and products pay up to {PAYS_BELOW}"
    return None
