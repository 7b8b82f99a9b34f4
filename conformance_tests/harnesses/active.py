"""Layers that hold only their active weights, under the suite: the mode ``"active"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from rigl_core import Recipe
from rigl_core.sparse.index import Index
from rigl_core.sparse.support import check_recipe, why_not_layer
from rigl_core.testing.limits import NotOffered
from rigl_core.testing.session import Array, Setup


def active_where_possible(
    setup: Setup, *, inputs_first: bool = True, convolutions: bool = False
) -> dict[str, Literal["active"]]:
    """The storage of each layer: active weights wherever a layer of a library can hold them, however small it is.

    Args:
        setup: the start of a training.
        inputs_first: whether the library has layers of (inputs, outputs).
        convolutions: whether it can hold convolutions so.

    Raises:
        NotOffered: if no layer can, or the recipe reads more than active weights.
    """
    if setup.dtype != "float32":
        raise NotOffered(f"the kernels of sparse layers multiply float32, not {setup.dtype}")
    if setup.optimizer.centered:
        raise NotOffered("an optimizer that is not element-wise sees other arrays: those of the active weights alone")
    if isinstance(setup.recipe, Recipe):
        try:
            check_recipe(setup.recipe)
        except ValueError as error:
            raise NotOffered(str(error)) from error
    possible: dict[str, Literal["active"]] = {
        layer.name: "active"
        for layer in setup.layers
        if why_not_layer(layer, convolutions=convolutions) is None and (inputs_first or layer.in_axes == (1,))
    }
    if not possible:
        raise NotOffered("no layer is one of inputs and outputs that the kernels have")
    together = isinstance(setup.recipe, Recipe) and setup.recipe.scope == "global"
    if together and len(possible) < len(setup.layers):
        raise NotOffered("layers that choose together are held alike, and one of them cannot be active weights")
    return possible


def held(indices: Mapping[str, Index], weights: Mapping[str, Array]) -> dict[str, Array]:
    """Dense weights as the parameters hold them, where ``indices`` are those of the layers of active weights.

    Raises:
        NotOffered: if a weight outside a mask is not 0, since such a layer has no place for it.
    """
    own = {name: indices[name].values(weight) if name in indices else weight for name, weight in weights.items()}
    if any(np.count_nonzero(own[name]) < np.count_nonzero(weight) for name, weight in weights.items()):
        raise NotOffered("a layer that holds only active weights has no place outside its mask")
    return own
