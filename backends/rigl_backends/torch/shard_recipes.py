"""What a recipe must not ask of layers that lie in shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from rigl_backends.torch.twin import is_sharded
from rigl_core.adapter import Plan, Unstructured

_NOT_OF_SHARDS: Mapping[str, tuple[Any, str]] = {
    "structure": (Unstructured(), "whose groups may lie in several shards"),
    "scope": ("layer", "by which layers choose together, and shards choose layer by layer"),
    "floor": (0, "a number of connections for each output, whose connections may lie in several shards"),
    "redistribution": (None, "which shares counts among layers, and shards count layer by layer"),
}


def check_shards(plan: Plan, params: Sequence[nn.Parameter]) -> None:
    """Refuse recipes whose choices need more than a layer's own counts, if layers are sharded."""
    sharded = [plan.layers[i] for i in plan.sparse_layers if is_sharded(params[i])]
    for parameter, (plain, reason) in _NOT_OF_SHARDS.items() if sharded else ():
        given = getattr(plan.recipe, parameter)
        if given != plain:
            raise ValueError(
                f"layer {sharded[0].name!r} is sharded (a DTensor), and the recipe has {parameter}={given!r}, "
                f"{reason}: use {parameter}={plain!r}, or exclude the layer."
            )
    grow = plan.recipe.grow
    for layer in sharded:
        if grow is not None and grow.compared_within is not None:
            raise ValueError(
                f"layer {layer.name!r} is sharded (a DTensor), and the recipe grows by {grow.name!r}, which compares "
                "connections that may lie in several shards: use grow=GRADIENT, or exclude the layer."
            )
        if layer.slices > 1:
            raise ValueError(
                f"layer {layer.name!r} is sharded (a DTensor), and has slices (stacked or fused), which may lie in "
                "several shards: leave stacked and fused out, or exclude the layer."
            )
