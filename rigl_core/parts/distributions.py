"""Sparsity distributions: how a global budget is shared among the layers (RigL paper, section 3 (1)).

A distribution is any object with the members of `Distribution`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol, runtime_checkable

from rigl_core.model.layers import Layer
from rigl_core.model.numbers import check_integer, check_sparsity
from rigl_core.model.patterns import check_patterns, first_match


@runtime_checkable
class Distribution(Protocol):
    """The members that the plan reads."""

    @property
    def kind(self) -> str:
        """The name in tables and in saved recipes."""

    def pinned(self, layers: Sequence[Layer]) -> Mapping[str, float]:
        """The sparsities, by layer name, that the distribution itself fixes outside the budget."""

    def densities(self, layers: Sequence[Layer], active: int) -> Sequence[Fraction]:
        """The real-valued density, in [0, 1], of each layer that shares the budget.

        Args:
            layers: the layers that share the budget.
            active: the budget: active weights of all these layers together.
        """


@dataclass(frozen=True)
class Uniform:
    """The same density in every layer.

    Attributes:
        first_dense: keep the first layer, in the order of the model, dense and outside the budget, as the paper does.
    """

    kind: ClassVar[str] = "uniform"
    first_dense: bool = True

    def pinned(self, layers: Sequence[Layer]) -> dict[str, float]:
        return {layers[0].name: 0.0} if self.first_dense else {}

    def densities(self, layers: Sequence[Layer], active: int) -> list[Fraction]:
        size = sum(layer.size for layer in layers)
        return [Fraction(active, size) if size else Fraction(0)] * len(layers)


class ScaledByShape:
    """Densities epsilon * scale(layer): the shape decides how much of the budget a layer gets.

    Epsilon is solved so that the densities meet the budget, in exact arithmetic. While a density exceeds 1, all layers
    with the largest scale become dense, and epsilon is solved again for the others.
    """

    def scale(self, layer: Layer) -> Fraction:
        """The layer's density at epsilon = 1. Of a layer with slices, it gets one slice."""
        raise NotImplementedError

    def pinned(self, layers: Sequence[Layer]) -> dict[str, float]:
        return {}

    def densities(self, layers: Sequence[Layer], active: int) -> list[Fraction]:
        epsilon, dense = self._solve(layers, active)
        return [Fraction(1) if layer in dense else epsilon * self.scale(layer.one_slice) for layer in layers]

    def epsilon(self, layers: Sequence[Layer], active: int) -> Fraction:
        """The factor by which the layers that did not become dense meet the rest of the budget."""
        return self._solve(layers, active)[0]

    def _solve(self, layers: Sequence[Layer], active: int) -> tuple[Fraction, set[Layer]]:
        scales = {layer: self.scale(layer.one_slice) for layer in layers if layer.size}
        sparse_size = {layer: scales[layer] * layer.size for layer in scales}
        dense, budget, size = {layer for layer in layers if not layer.size}, Fraction(active), sum(sparse_size.values())
        largest_first = sorted(scales, key=lambda layer: -scales[layer])
        for maximum, at_maximum in itertools.groupby(largest_first, key=lambda layer: scales[layer]):
            epsilon = budget / size
            if epsilon * maximum <= 1:
                return epsilon, dense
            for layer in at_maximum:
                dense.add(layer)
                budget -= layer.size
                size -= sparse_size[layer]
        return Fraction(0), dense


@dataclass(frozen=True)
class ErdosRenyi(ScaledByShape):
    """Density epsilon * (n_in + n_out) / (n_in * n_out) (Mocanu et al. 2018; RigL paper, section 3 (1)).

    The layer says which axes are in and out, so a kernel gets the same density in any memory layout.
    """

    kind: ClassVar[str] = "er"

    def scale(self, layer: Layer) -> Fraction:
        return Fraction(layer.n_in + layer.n_out, layer.n_in * layer.n_out)


@dataclass(frozen=True)
class ErdosRenyiKernel(ScaledByShape):
    """Density epsilon * (sum of dims) / (product of dims), including kernel dims (RigL paper, section 3 (1))."""

    kind: ClassVar[str] = "erk"

    def scale(self, layer: Layer) -> Fraction:
        return Fraction(sum(layer.shape), layer.size)


@dataclass(frozen=True)
class PerLayer:
    """An explicit sparsity for every layer, by glob pattern; the first match wins.

    Attributes:
        sparsities: pairs (pattern, sparsity in [0, 1)); a mapping is accepted.

    Raises:
        ValueError: for a sparsity outside [0, 1).
    """

    kind: ClassVar[str] = "per_layer"
    sparsities: Mapping[str, float] | tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsities", sparsity_pairs("sparsities", self.sparsities))

    def pinned(self, layers: Sequence[Layer]) -> dict[str, float]:
        """The sparsity of each layer by name.

        Raises:
            ValueError: for a pattern that matches no layer, or a layer that no pattern matches.
        """
        values = dict(self.sparsities)
        check_patterns("sparsities", values, [layer.name for layer in layers])
        pinned = {}
        for layer in layers:
            sparsity = first_match(layer.name, values)
            if sparsity is None:
                raise ValueError(
                    f"sparsities says nothing of layer {layer.name!r}: add a pattern for it, or '*' at the end."
                )
            pinned[layer.name] = sparsity
        return pinned

    def densities(self, layers: Sequence[Layer], active: int) -> list[Fraction]:
        raise ValueError("sparsities fixes every layer: no budget is left to share.")


@dataclass(frozen=True)
class Given:
    """The numbers of active weights of given masks (`rigl_core.storage`), to the last weight.

    Attributes:
        counts: pairs (layer name, active weights); a mapping is accepted. The recipe's sparsity must be theirs.

    Raises:
        TypeError, ValueError: for anything but a name and a whole number of at least 0.
    """

    kind: ClassVar[str] = "given"
    counts: Mapping[str, int] | tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        counts = dict(self.counts)
        pairs = tuple((name, check_integer(f"counts[{name!r}]", count, 0)) for name, count in counts.items())
        object.__setattr__(self, "counts", pairs)

    def pinned(self, layers: Sequence[Layer]) -> dict[str, float]:
        return {}

    def densities(self, layers: Sequence[Layer], active: int) -> list[Fraction]:
        """The density of each layer.

        Raises:
            ValueError: for a layer without a count.
        """
        counts = dict(self.counts)
        for layer in layers:
            if layer.name not in counts:
                raise ValueError(f"counts says nothing of layer {layer.name!r}: give masks for it as well.")
        return [Fraction(counts[layer.name], layer.size or 1) for layer in layers]


def sparsity_pairs(parameter: str, sparsities: object) -> tuple[tuple[str, float], ...]:
    """Sparsities by name pattern as a tuple of pairs, which can be hashed, in the given order.

    Args:
        parameter: the name of the parameter, for messages.
        sparsities: a mapping from pattern to sparsity, or pairs of both.

    Raises:
        TypeError, ValueError: names the parameter, for anything else, or for a sparsity outside [0, 1).
    """
    if isinstance(sparsities, Mapping):
        sparsities = tuple(sparsities.items())
    if not isinstance(sparsities, Sequence) or isinstance(sparsities, str):
        raise TypeError(f"{parameter} is {sparsities!r}: give a mapping from name pattern to sparsity.")
    pairs = []
    for pair in sparsities:
        if isinstance(pair, str) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"{parameter} holds {pair!r}: give pairs of a name pattern and a sparsity.")
        pairs.append((pair[0], check_sparsity(pair[1], f"{parameter}[{pair[0]!r}]")))
    return tuple(pairs)


DISTRIBUTIONS: Mapping[str, type] = {cls.kind: cls for cls in (Uniform, ErdosRenyi, ErdosRenyiKernel, PerLayer, Given)}
