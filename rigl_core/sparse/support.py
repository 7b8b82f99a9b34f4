"""Which recipes and layers can be held as active weights alone."""

from __future__ import annotations

import math

from rigl_core.model.layers import Layer
from rigl_core.parts.criteria import GRADIENT, RANDOM
from rigl_core.parts.structures import Unstructured
from rigl_core.recipe import Recipe

PAYS_FROM = 1 << 16
"""The connections of the smallest layer that is faster truly sparse: in smaller ones the calls cost too much."""
PAYS_BELOW = 0.25
"""The highest density at which a truly sparse layer is faster than a dense one."""

WIDEST_KERNEL = 1 << 16
"""The most positions of a convolution's kernel: an index counts the columns of a channel in two bytes."""


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


def why_not_layer(layer: Layer, *, convolutions: bool = False) -> str | None:
    """Why a layer cannot be held as active weights; None if it can.

    It must be a matrix, whose inputs are one axis and whose outputs are the other. Or it is the kernel of a
    two-dimensional convolution, an array (outputs, inputs, height, width) or (height, width, inputs, outputs).

    Args:
        layer: the layer.
        convolutions: whether the adapter can hold convolutions.
    """
    axes = len(layer.shape)
    if layer.depthwise:
        return "is depthwise, and has few connections for each input"
    if axes != 2 and not (convolutions and axes == 4):
        return "is not a matrix or the kernel of a two-dimensional convolution" if convolutions else "is not a matrix"
    if axes == 2 and layer.groups != 1:
        return "is not a matrix"
    if math.prod(layer.shape[axis] for axis in layer.kernel_axes) > WIDEST_KERNEL:
        return f"has a kernel of more than {WIDEST_KERNEL:,} positions"
    kernel = tuple(range(2, axes))
    if (layer.out_axes, layer.in_axes, layer.kernel_axes) == ((0,), (1,), kernel):
        return None
    if (layer.kernel_axes, layer.in_axes, layer.out_axes) == (tuple(range(axes - 2)), (axes - 2,), (axes - 1,)):
        return None
    return "has no known axis of inputs and axis of outputs (give them by axes)"


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
