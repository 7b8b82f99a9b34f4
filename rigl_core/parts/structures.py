"""Structured topologies: an update chooses connections in groups or in blocks.

A structure rearranges a layer's weights to the shape (groups, units in a group, weights in a unit). All groups have the
same number of active units. Either all weights of a unit are active, or none. Without a structure the layer is one
group, and every weight is a unit.
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
    """How a layer's flat weights get the shape (groups, units, weights in a unit): axes are split, then reordered.

    Attributes:
        split: the layer's shape after some of its axes are split in two.
        order: these axes in their new order.
        groups: the number of groups.
        units: the number of units in a group.
        unit: the number of weights in a unit.
    """

    split: tuple[int, ...]
    order: tuple[int, ...]
    groups: int
    units: int
    unit: int = 1

    @property
    def weights_per_choice(self) -> int:
        """The number of weights that become active when every group chooses one more unit."""
        return self.groups * self.unit

    def rounded(self, active: int) -> int:
        """The number nearest to ``active`` that gives all groups the same number of active units."""
        step = self.weights_per_choice
        return min(round(Fraction(active, step)), self.units) * step if step else 0

    def scores_by_unit(self, scores: Array, *, xp: Namespace) -> Array:
        """Scores of units, (groups, units), from flat scores of weights.

        A unit's score is the sum of its weights' scores, added in order. Random scores (int32) are first shifted right,
        so that their sum fits in int32. The sum of opposite infinities is NaN and counts as 0.
        """
        columns = self._columns(scores, xp)
        if self.unit > 1:
            whole = scores.dtype == xp.int32
            columns = xp.bitwise_right_shift(columns, (self.unit - 1).bit_length()) if whole else xp.widen(columns)
            total = columns[:, 0]
            for i in range(1, self.unit):
                total = total + columns[:, i]
            columns = total if whole else normal(total, xp=xp)
        return xp.reshape(columns, (self.groups, self.units))

    def mask_by_unit(self, mask: Array, *, xp: Namespace) -> Array:
        """A mask of units, (groups, units), from a flat mask of weights."""
        return xp.reshape(self._columns(mask, xp)[:, 0], (self.groups, self.units))

    def mask_by_weight(self, mask: Array, *, xp: Namespace) -> Array:
        """A flat mask of weights from a mask of units, (groups, units); or what else is known of units."""
        column = xp.reshape(mask, (self.groups * self.units, 1))
        columns = xp.concat([column] * self.unit) if self.unit > 1 else column
        by_weight = xp.permute_dims(xp.reshape(columns, (self.unit, self.groups * self.units)), (1, 0))
        back = tuple(self.order.index(axis) for axis in range(len(self.order)))
        arranged = xp.reshape(by_weight, tuple(self.split[axis] for axis in self.order))
        return xp.reshape(xp.permute_dims(arranged, back), (-1,))

    def _columns(self, flat: Array, xp: Namespace) -> Array:
        arranged = xp.permute_dims(xp.reshape(flat, self.split), self.order)
        return xp.reshape(arranged, (self.groups * self.units, self.unit))


def of_each(layer: Layer, axes: tuple[int, ...], units: int) -> Arrangement:
    """The connections of each unit as a group: of each output, or of each input, which ``axes`` index."""
    rest = tuple(axis for axis in range(len(layer.shape)) if axis not in axes)
    return Arrangement(layer.shape, axes + rest, units, layer.size // (units or 1))


@runtime_checkable
class Structure(Protocol):
    """The members that the plan and an update read."""

    @property
    def kind(self) -> str:
        """The name in tables and in saved recipes."""

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the structure itself gives to each layer; None if the distribution gives it."""

    def arrangement(self, layer: Layer) -> Arrangement | None:
        """The groups and units of this layer; None if any connections may be active.

        Raises:
            ValueError: if the structure does not fit the layer.
        """


@dataclass(frozen=True)
class Unstructured:
    """No structure: any connections of a layer may be active."""

    kind: ClassVar[str] = "unstructured"
    sparsity: ClassVar[None] = None

    def arrangement(self, layer: Layer) -> None:
        return None


@dataclass(frozen=True)
class ConstantFanIn:
    """Every output has the same number of connections (SRigL: Lasby et al. 2024, section 3).

    The published SRigL also takes whole neurons away: see `rigl_core.SRigLAsPublished`.
    """

    kind: ClassVar[str] = "constant_fan_in"
    sparsity: ClassVar[None] = None

    def arrangement(self, layer: Layer) -> Arrangement:
        if layer.grouped_axes == "out" and layer.groups > 1:
            raise _does_not_fit(layer, "constant fan-in does not know grouped transposed convolutions")
        return of_each(layer, layer.out_axes, layer.n_out)


@dataclass(frozen=True)
class NM:
    """N active weights among every M consecutive inputs (Mishra et al. 2021, section 3: sparse tensor cores use 2:4).

    Attributes:
        n: active weights in each group, so that every layer has the density n / m.
        m: number of consecutive inputs in a group. Each output and each position of the kernel has its own groups.
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
    """Square blocks of outputs and inputs: all weights of a block are active, or none.

    A convolution has its own blocks at each position of its kernel. A block's score is the sum of its weights' scores
    (Gray et al. 2017; Narang et al. 2017 take the maximum).

    Attributes:
        size: the number of outputs, and of inputs, in a block.
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
