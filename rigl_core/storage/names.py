"""The names of a topology's layers, and those of a model."""

from __future__ import annotations

from collections.abc import Sequence

from rigl_core.model.layers import Layer
from rigl_core.storage.turning import has_axes, matrix_shape


def check_names(own: Sequence[Layer], layers: Sequence[Layer]) -> None:
    """Refuse a topology that has other layers than a model.

    Args:
        own: the layers of the topology.
        layers: those of the model.

    Raises:
        ValueError: lists the names on both sides, and proposes a map between them.
    """
    there, wanted = {layer.name for layer in own}, {layer.name for layer in layers}
    if there == wanted:
        return
    missing = ", ".join(repr(layer.name) for layer in layers if layer.name not in there)
    left = ", ".join(repr(layer.name) for layer in own if layer.name not in wanted)
    parts = [f"it has no mask for {missing}"] if missing else []
    parts += [f"the model's layers are without {left}"] if left else []
    names = proposed(own, layers)
    advice = f"Give names, such as {names}" if names else "Choose the same layers (include, exclude, layers)"
    raise ValueError(f"topology does not fit: {', and '.join(parts)}. {advice}.")


def proposed(own: Sequence[Layer], layers: Sequence[Layer]) -> dict[str, str]:
    """Names of a model by those of a topology, where they differ: layers of like shapes are paired in their order."""
    there, wanted = {layer.name for layer in own}, {layer.name for layer in layers}
    open_ = [layer for layer in layers if layer.name not in there]
    names = {}
    for layer in own:
        like = next((other for other in open_ if _form(other) == _form(layer)), None)
        if layer.name not in wanted and like is not None:
            names[layer.name] = like.name
            open_.remove(like)
    return names


def _form(layer: Layer) -> tuple[int, ...]:
    return matrix_shape(layer) if has_axes(layer) else layer.shape
