"""A network as plans and costs see it: its weights, and how often each weight is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import overload

from rigl_core.model.layers import Layer, check_layers
from rigl_core.model.table import aligned


@dataclass(frozen=True)
class Network(Sequence[Layer]):
    """The layers that may be sparsified, in the model's order, and the facts that their costs depend on.

    A network is a sequence of these layers, so functions that take layers also take a network:
    ``make_plan(recipe, network)``. `rigl_core.costs.specs` has published networks, and every adapter's ``describe``
    makes a network from a real model.

    Attributes:
        layers: the layers that may be sparsified.
        positions: by name, how often one example uses each weight of a layer: output height times width for
            a convolution (input height times width for a transposed one), the number of tokens for a fully
            connected or recurrent layer, 0 for a look-up. If the weights of a layer are used unequally, it is their
            mean. A layer of one or two axes without an entry is used once.
        always_dense: layers that no recipe changes but that have costs, such as depthwise kernels.
        name: a name for people.

    Raises:
        ValueError: for names that occur twice or are unknown, a negative number of positions, or a layer with
            three or more axes (usually a convolution) without positions.
    """

    layers: tuple[Layer, ...]
    positions: Mapping[str, float] = field(default_factory=dict)
    always_dense: tuple[Layer, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "always_dense", tuple(self.always_dense))
        weights = check_layers(self.layers + self.always_dense)
        names = [layer.name for layer in weights]
        for name, positions in self.positions.items():
            if name not in names:
                raise ValueError(f"positions names {name!r}: no layer has this name. Correct or remove it.")
            if not 0 <= positions < float("inf"):
                raise ValueError(f"positions[{name!r}] is {positions}: it must be a finite number of at least 0.")
        complete = {layer.name: _positions(layer, self.positions) for layer in weights}
        object.__setattr__(self, "positions", MappingProxyType(complete))

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Layer, ...]: ...
    def __getitem__(self, index: int | slice) -> Layer | tuple[Layer, ...]:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @property
    def weights(self) -> tuple[Layer, ...]:
        """All layers: first the layers that may be sparsified, then those that are always dense."""
        return self.layers + self.always_dense

    def __str__(self) -> str:
        rows = [("layer", "shape", "positions", "weights")]
        for layer in self.weights:
            shape = layer.shape_text + ("" if layer in self.layers else " (dense)")
            rows.append((layer.name, shape, f"{self.positions[layer.name]:,}", f"{layer.size:,}"))
        rows.append(("total", "", "", f"{sum(layer.size for layer in self.weights):,}"))
        return "\n".join(([self.name] if self.name else []) + aligned(rows))


def _positions(layer: Layer, given: Mapping[str, float]) -> float:
    if layer.name in given:
        return given[layer.name]
    if len(layer.shape) > 2:
        raise ValueError(
            f"positions says nothing of layer {layer.name!r} of shape {layer.shape}: give the number of positions "
            "that its kernel is applied to in one example (for a convolution, output height times width)."
        )
    return 1
