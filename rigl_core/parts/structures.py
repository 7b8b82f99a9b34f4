"""Structured topologies: the same update, with connections chosen in groups or in blocks.

A structure rearranges a layer's weights as (groups, units of each, weights of each unit). Every group has as many
active units as the others, chosen among its own; all weights of a unit are active, or none. Without structure there
is one group of single weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol, runtime_checkable

from rigl_core.arrays.namespace import Array, Namespace
from rigl_core.arrays.topology import normal
from rigl_core.model.layers import Layer
from rigl_core.model.numbers import check_integer


@dataclass(frozen=True)
class Arrangement:
    """How a layer's flat weights become (groups, units, weights of a unit): its axes are split, then ordered.

    Attributes:
        split: the layer's shape, with axes split.
        order: those axes in their new order.
        groups: how many groups.
        units: how many units each group has.
        unit: how many weights each unit has.
    """

    split: tuple[int, ...]
    order: tuple[int, ...]
    groups: int
    units: int
    unit: int = 1

    def rounded(self, active: int) -> int:
        """The nearest number of active weights that gives every group as many."""
        step = self.groups * self.unit
        return min(round(Fraction(active, step)), self.units) * step if step else 0

    def of_units(self, scores: Array, *, xp: Namespace) -> Array:
        """From flat scores of weights those of units, (groups, units): a unit's are added from first to last.

        Integers lose as many of their last bits before as their sum has more. The sum of opposite infinities counts as
        0, as NaN does everywhere.
        """
        columns = self._columns(scores, xp)
        if self.unit > 1:
            whole = "int" in str(scores.dtype)
            columns = xp.shift_right(columns, (self.unit - 1).bit_length()) if whole else xp.widen(columns)
            total = columns[:, 0]
            for i in range(1, self.unit):
                total = total + columns[:, i]
            columns = total if whole else normal(total, xp=xp)
        return xp.reshape(columns, (self.groups, self.units))

    def any_of_units(self, mask: Array, *, xp: Namespace) -> Array:
        """From a flat mask of weights that of units, (groups, units)."""
        return xp.reshape(self._columns(mask, xp)[:, 0], (self.groups, self.units))

    def of_weights(self, mask: Array, *, xp: Namespace) -> Array:
        """From a mask of units (groups, units) the flat mask of weights."""
        column = xp.reshape(mask, (self.groups * self.units, 1))
        columns = xp.concat([column] * self.unit) if self.unit > 1 else column
        by_weight = xp.permute(xp.reshape(columns, (self.unit, self.groups * self.units)), (1, 0))
        back = tuple(self.order.index(axis) for axis in range(len(self.order)))
        arranged = xp.reshape(by_weight, tuple(self.split[axis] for axis in self.order))
        return xp.reshape(xp.permute(arranged, back), (-1,))

    def _columns(self, flat: Array, xp: Namespace) -> Array:
        arranged = xp.permute(xp.reshape(flat, self.split), self.order)
        return xp.reshape(arranged, (self.groups * self.units, self.unit))


@runtime_checkable
class Structure(Protocol):
    """What an update asks of a structure."""

    @property
    def kind(self) -> str:
        """The name under which it is shown and serialized."""

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the structure itself gives to each layer; None to leave it to the distribution."""

    def arrangement(self, layer: Layer) -> Arrangement | None:
        """How to choose in this layer; None to choose freely.

        Raises:
            ValueError: if the layer does not fit.
        """


@dataclass(frozen=True)
class Unstructured:
    """Any connections of a layer."""

    kind: ClassVar[str] = "unstructured"
    sparsity: ClassVar[None] = None

    def arrangement(self, layer: Layer) -> None:
        return None


@dataclass(frozen=True)
class ConstantFanIn:
    """Every output has the same number of connections (SRigL: Lasby et al. 2024, section 3).

    SRigL also takes away whole neurons; here every output keeps its share.
    """

    kind: ClassVar[str] = "constant_fan_in"
    sparsity: ClassVar[None] = None

    def arrangement(self, layer: Layer) -> Arrangement:
        if layer.grouped_axes == "out" and layer.groups > 1:
            raise _does_not_fit(layer, "constant fan-in does not know grouped transposed convolutions")
        rest = tuple(axis for axis in range(len(layer.shape)) if axis not in layer.out_axes)
        return Arrangement(layer.shape, layer.out_axes + rest, layer.n_out, layer.size // (layer.n_out or 1))


@dataclass(frozen=True)
class NM:
    """N of every M consecutive inputs: 2:4 is what sparse tensor cores multiply (Mishra et al. 2021, section 3).

    Attributes:
        n: active weights in each group, so that every layer has the density n / m.
        m: size of a group, along the in axis, at one output and one position of the kernel.
    """

    kind: ClassVar[str] = "n_of_m"
    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "m", check_integer("m", self.m, 1))
        object.__setattr__(self, "n", check_integer("n", self.n, 1))
        if self.n > self.m:
            raise ValueError(f"n is {self.n}: of {self.m} connections no more than {self.m} can be active.")

    @property
    def sparsity(self) -> float:
        return 1 - self.n / self.m

    def arrangement(self, layer: Layer) -> Arrangement:
        if layer.n_in % self.m:
            raise _does_not_fit(layer, f"its {layer.n_in} inputs are no multiple of m={self.m}")
        rest = tuple(axis for axis in range(len(layer.shape)) if axis not in layer.in_axes)
        return Arrangement(layer.shape, rest + layer.in_axes, layer.size // self.m, self.m)


@dataclass(frozen=True)
class Blocks:
    """Square blocks of outputs and inputs, active or not as a whole, at one position of the kernel.

    A block's score is the sum of its weights' scores (Gray et al. 2017; Narang et al. 2017 take the maximum).

    Attributes:
        size: outputs, and inputs, of a block.
    """

    kind: ClassVar[str] = "blocks"
    sparsity: ClassVar[None] = None
    size: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_integer("size", self.size, 1))

    def arrangement(self, layer: Layer) -> Arrangement:
        if len(layer.in_axes) != 1 or len(layer.out_axes) != 1:
            raise _does_not_fit(layer, "blocks need one in axis and one out axis")
        split: list[int] = []
        outer, inner = [], []
        for axis, size in enumerate(layer.shape):
            outer.append(len(split))
            if axis not in layer.in_axes + layer.out_axes:
                split.append(size)
            elif size % self.size:
                raise _does_not_fit(layer, f"its axis {axis} of size {size} is no multiple of size={self.size}")
            else:
                inner.append(len(split) + 1)
                split += [size // self.size, self.size]
        unit = self.size**2
        return Arrangement(tuple(split), tuple(outer + inner), 1, layer.size // unit, unit)


def _does_not_fit(layer: Layer, why: str) -> ValueError:
    return ValueError(
        f"structure does not fit layer {layer.name!r} of shape {layer.shape}: {why}. Pin the layer with dense=[...], "
        "exclude it, or take another structure."
    )


STRUCTURES: Mapping[str, type] = {cls.kind: cls for cls in (Unstructured, ConstantFanIn, NM, Blocks)}
