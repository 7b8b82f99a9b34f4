"""Which recipes and layers can be held as active weights alone."""

from __future__ import annotations

import math

from rigl_core.model.layers import Layer
from rigl_core.parts.criteria import GRADIENT, RANDOM
from rigl_core.parts.structures import Unstructured
from rigl_core.recipe import Recipe

PAYS_FROM, PAYS_BELOW = 1 << 16, 0.25
"""The connections of the smallest matrix that is faster truly sparse, as calls cost time; and the highest density."""
CONVOLUTION_PAYS_FROM, CONVOLUTION_PAYS_BELOW = 1 << 17, 0.2
"""The same for a group of a convolution, whose inputs are packed once for each position of the kernel."""
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
    if rule.floor:
        return "keeps a floor of connections for each output, and active weights are chosen as one"
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
    if layer.stacked or layer.fused:
        return "has slices (stacked, fused), which choose on their own, and active weights choose as one layer"
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
    is_matrix, size = len(layer.shape) == 2, layer.size // layer.groups
    least = PAYS_FROM if is_matrix else CONVOLUTION_PAYS_FROM
    most = PAYS_BELOW if is_matrix else CONVOLUTION_PAYS_BELOW
    if size < least:
        return f"has {size:,} connections{' a group' if layer.groups > 1 else ''}, and products pay from {least:,} on"
    if active > most * layer.size:
        return f"has a density of {active / layer.size:.2f}, and products pay up to {most}"
    return None
