"""Layers that hold only their active weights, under the suite: the mode ``"active"``."""

from __future__ import annotations

from typing import Literal

from rigl_core import Recipe
from rigl_core.sparse.support import check_recipe, why_not_layer
from rigl_core.testing.limits import NotOffered
from rigl_core.testing.session import Setup


def active_where_possible(setup: Setup, *, inputs_first: bool = True) -> dict[str, Literal["active"]]:
    """The storage of each layer: active weights wherever a layer of a library can hold them, however small it is.

    Args:
        setup: the start of a training.
        inputs_first: whether the library has layers of (inputs, outputs).

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
        if why_not_layer(layer) is None and (inputs_first or layer.in_axes == (1,))
    }
    if not possible:
        raise NotOffered("no layer is a matrix of inputs and outputs")
    together = isinstance(setup.recipe, Recipe) and setup.recipe.scope == "global"
    if together and len(possible) < len(setup.layers):
        raise NotOffered("layers that choose together are held alike, and one of them is no matrix")
    return possible
