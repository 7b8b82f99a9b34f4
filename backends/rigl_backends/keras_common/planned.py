"""`plan`: what a recipe would do to a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rigl_backends.keras_common.layers import layers_of, others_among
from rigl_backends.keras_common.variables import variables_of
from rigl_core.adapter import Axes, Fused, Layer, Plan, Recipe, Stacked, make_plan


def plan(
    model: keras.layers.Layer | Sequence[Any],
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> Plan:
    """The plan that `sparsify` would make of this model; nothing is changed. Print it to see the layers.

    Args:
        model: a built model, or the variables that the optimizer would be built with.
        recipe: how to train sparsely.
        layers: as for `sparsify`; so are ``include``, ``exclude``, ``axes``, ``stacked`` and ``fused``.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    return plan_of(model, recipe, layers_of(model, layers, include, exclude, axes, stacked, fused), layers)


def plan_of(
    model: keras.layers.Layer | Sequence[Any], recipe: Recipe, chosen: Sequence[Layer], layers: Sequence[Layer] | None
) -> Plan:
    """The plan for the layers that `layers_of` has chosen; ``layers`` are those that the user gave, if any."""
    return make_plan(recipe, chosen, others_among(variables_of(model), chosen) if layers is None else None)
