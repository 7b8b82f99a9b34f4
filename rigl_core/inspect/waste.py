"""How the active connections of a layer are spread over its units, and what of them is of no use.

Growth by gradient magnitudes can pile up on a few units, since magnitudes of different units are not comparable: others
are left without an input. `Units` counts them; `on_no_path` counts connections that lead nowhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.inspect.host import to_numpy
from rigl_core.inspect.neurons import effective_architecture
from rigl_core.model.layers import Layer
from rigl_core.model.table import share
from rigl_core.model.warnings import SparsityWarning
from rigl_core.plan import Plan

LIMIT = 0.25
"""The share of empty outputs from which a warning tells. Random topologies of usual plans leave far fewer."""
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """One layer's units: its outputs and inputs, those of all slices and groups.

    Attributes:
        outputs: number of outputs.
        empty: number of outputs without any active connection. What they put out depends on no input.
        inputs: number of inputs.
        unread: number of inputs that no active connection reads.
        most_in: the largest share of the layer's active connections that one output holds.
        most_out: the largest share of the layer's active connections that one input holds.
    """

    outputs: int
    empty: int
    inputs: int
    unread: int
    most_in: float
    most_out: float

    @property
    def empty_share(self) -> float:
        """The share of outputs that are empty."""
        return share(self.empty, self.outputs)


def units(layers: Iterable[Layer], masks: Mapping[str, Any]) -> dict[str, Units]:
    """The units of each layer that has a mask, and whose in and out axes are known.

    Args:
        layers: such as ``sparse.plan.layers``.
        masks: bool arrays by layer name, as the ``masks`` of every adapter.

    Raises:
        ValueError: naming the layer, for a mask of another shape.
    """
    known = [layer for layer in layers if layer.name in masks and layer.in_axes and layer.out_axes]
    return {layer.name: _units(layer, masks[layer.name]) for layer in known}


def empty_share(found: Mapping[str, Units]) -> float:
    """The share of empty outputs among those of all layers."""
    return share(sum(each.empty for each in found.values()), sum(each.outputs for each in found.values()))


def on_no_path(layers: Iterable[Layer], masks: Mapping[str, Any], chain: Sequence[str]) -> float:
    """The share of a chain's active connections that lie on no path from its inputs to its outputs.

    Args:
        layers: such as ``sparse.plan.layers``.
        masks: bool arrays by layer name.
        chain: names of layers, each of which reads the outputs of the one before, and nothing else: a skip connection
            would be a path that is not seen.

    Raises:
        ValueError: if a name is unknown, or the layers are no chain (`rigl_core.effective_architecture`).
    """
    by_name = {layer.name: layer for layer in layers}
    if unknown := [name for name in chain if name not in by_name]:
        raise ValueError(f"chain names {unknown[0]!r}, which is no layer: the layers are {', '.join(by_name)}.")
    architecture = effective_architecture([by_name[name] for name in chain], masks)
    active = sum(
        int(np.count_nonzero(to_numpy(masks[name]))) if name in masks else by_name[name].size for name in chain
    )
    return 1 - share(sum(architecture.active), active) if active else 0.0


def tell_of_waste_in(plan: Plan, masks: Mapping[str, Any]) -> bool:
    """As `tell_of_waste`, for a training; a recipe that takes outputs away aims at empty ones, and is not warned."""
    return plan.recipe.gamma_sal is None and tell_of_waste(units(plan.layers, masks), stacklevel=4)


def tell_of_waste(found: Mapping[str, Units], limit: float = LIMIT, *, stacklevel: int = 3) -> bool:
    """Warn if more than a share ``limit`` of all outputs is empty; tells whether it did."""
    if empty_share(found) <= limit:
        return False
    worst = sorted((name for name in found if found[name].empty), key=lambda name: -found[name].empty_share)[:3]
    listed = ", ".join(f"{found[name].empty:,} of {found[name].outputs:,} in {name!r}" for name in worst)
    message = (
        f"{100 * empty_share(found):.0f} % of the layers' outputs have no active connection: {listed}. Connections "
        "pile up on few units. Take a lower sparsity, a smaller drop fraction, or a recipe that spreads them: "
        "floor=1, grow=GRADIENT_BY_OUTPUT or structure=ConstantFanIn()."
    )
    warnings.warn(message, SparsityWarning, stacklevel=stacklevel)
    return True


def _units(layer: Layer, mask: Any) -> Units:
    array = np.asarray(to_numpy(mask), np.bool_)
    if array.shape != layer.shape:
        raise ValueError(f"masks has the shape {array.shape} for layer {layer.name!r}: it must be {layer.shape}.")
    fan_in, fan_out = _fans(layer, array)
    active = int(fan_in.sum())
    return Units(
        outputs=fan_in.size,
        empty=int(np.count_nonzero(fan_in == 0)),
        inputs=fan_out.size,
        unread=int(np.count_nonzero(fan_out == 0)),
        most_in=share(int(fan_in.max(initial=0)), active),
        most_out=share(int(fan_out.max(initial=0)), active),
    )


def _fans(layer: Layer, mask: npt.NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """The number of active connections of each output and of each input, flat.

    A fused part has inputs of its own, as the queries of attention have; so has each layer of a stack.
    """
    axes = {"in": list(layer.in_axes), "out": list(layer.out_axes), "own": list(layer.stacked)}
    if layer.fused:
        mask, axes = _split(mask, axes, *layer.fused)
    if layer.groups > 1 and layer.slices == layer.stack_size:
        whole = axes["out" if layer.grouped_axes == "in" else "in"][0]
        mask, axes = _split(mask, axes, whole, layer.groups)
    every = set(range(mask.ndim))
    counts = [
        mask.sum(axis=tuple(every - {*axes[side], *axes["own"]}), dtype=np.int64).reshape(-1) for side in ("out", "in")
    ]
    return counts[0], counts[1]


def _split(
    mask: npt.NDArray[np.bool_], axes: Mapping[str, list[int]], axis: int, parts: int
) -> tuple[npt.NDArray[np.bool_], dict[str, list[int]]]:
    """The mask with one axis in two: the parts, which become an axis of their own, and the positions in a part."""
    shape = *mask.shape[:axis], parts, mask.shape[axis] // parts, *mask.shape[axis + 1 :]
    moved = {side: [each + (each >= axis) for each in own] for side, own in axes.items()}
    return mask.reshape(shape), {**moved, "own": [*moved["own"], axis]}
