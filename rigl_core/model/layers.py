"""A layer: one parameter whose connections may be sparsified."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rigl_core.model.slices import check_slices


@dataclass(frozen=True)
class Layer:
    """One maskable parameter, described without its values.

    The axes are named, never guessed from their position: frameworks store the same kernel as
    (out, in, height, width) or (height, width, in, out), and only the adapter knows which.

    Attributes:
        name: the parameter's name in the user's model; unique.
        shape: sizes of the stored array.
        in_axes: axes that index input features; empty if unknown.
        out_axes: axes that index output features; empty if unknown.
        groups: number of groups of a grouped convolution (1: every output sees every input).
        grouped_axes: the axes whose stored size is the layer's size divided by ``groups``: ``"in"`` (convolutions)
            or ``"out"`` (PyTorch's transposed convolutions).
        depthwise: whether every input channel has its own kernels.
        stacked: axes along which layers of one shape are stacked: every position there is a slice.
        fused: (axis, parts): the axis is cut into this number of equal parts, and each is a slice; empty for none.

    Raises:
        ValueError: for an empty name, a scalar, a negative size, or axes that do not fit the shape.
    """

    name: str
    shape: tuple[int, ...]
    in_axes: tuple[int, ...] = ()
    out_axes: tuple[int, ...] = ()
    groups: int = 1
    grouped_axes: str = "in"
    depthwise: bool = False
    stacked: tuple[int, ...] = ()
    fused: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in ("shape", "in_axes", "out_axes", "stacked", "fused"):
            object.__setattr__(self, field, tuple(int(n) for n in getattr(self, field)))
        if not self.name:
            raise ValueError("name is empty: give the layer the parameter's name in your model.")
        if not self.shape:
            raise ValueError(f"shape of layer {self.name!r} is (): a scalar has no connections; leave it out.")
        if min(self.shape) < 0:
            raise ValueError(f"shape of layer {self.name!r} is {self.shape}: sizes cannot be negative.")
        if self.size >= 2**31:
            raise ValueError(f"shape of layer {self.name!r} is {self.shape}: a layer holds fewer than 2**31 weights.")
        axes = self.in_axes + self.out_axes
        if len(set(axes)) < len(axes) or any(not 0 <= axis < len(self.shape) for axis in axes):
            raise ValueError(
                f"in_axes={self.in_axes} and out_axes={self.out_axes} of layer {self.name!r} must be "
                f"different axes from 0 to {len(self.shape) - 1}."
            )
        if self.groups < 1:
            raise ValueError(f"groups of layer {self.name!r} is {self.groups}: it must be at least 1.")
        if self.grouped_axes not in ("in", "out"):
            raise ValueError(f"grouped_axes of layer {self.name!r} is {self.grouped_axes!r}: use 'in' or 'out'.")
        check_slices(self.name, self.shape, self.in_axes + self.out_axes, self.stacked, self.fused)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def slices(self) -> int:
        """Number of slices, each of which is chosen, and gets its share of the budget, as a layer of its own."""
        return self.stack_size * (self.fused[1] if self.fused else 1)

    @property
    def stack_size(self) -> int:
        """Number of layers of a stack, each of which may have fused parts; 1 for a layer that is no stack."""
        return math.prod(self.shape[axis] for axis in self.stacked)

    @property
    def one_slice(self) -> Layer:
        """One slice as a layer, under the name of the whole; a layer without slices is its own one."""
        if not self.stacked and not self.fused:
            return self
        axis, parts = self.fused or (-1, 1)
        own = [i for i in range(len(self.shape)) if i not in self.stacked]
        shape = [self.shape[i] // parts if i == axis else self.shape[i] for i in own]
        in_axes, out_axes = (tuple(map(own.index, axes)) for axes in (self.in_axes, self.out_axes))
        # The groups of a convolution lie along the axes whose size is stored in full.
        across = axis in (self.out_axes if self.grouped_axes == "in" else self.in_axes)
        groups = self.groups // math.gcd(self.groups, parts) if across else self.groups
        return Layer(self.name, tuple(shape), in_axes, out_axes, groups, self.grouped_axes, self.depthwise)

    @property
    def shape_text(self) -> str:
        """The shape for tables: ``300x784``, or ``24 of 512x2048`` for a layer of 24 slices."""
        text = "x".join(map(str, self.one_slice.shape))
        return f"{self.slices} of {text}" if self.stacked or self.fused else text

    @property
    def kernel_axes(self) -> tuple[int, ...]:
        """The axes that are neither in, out nor stack axes: positions in a convolution's kernel."""
        known = self.in_axes + self.out_axes + self.stacked
        return tuple(axis for axis in range(len(self.shape)) if axis not in known)

    @property
    def n_in(self) -> int:
        """Product of the stored sizes of the in axes (in a grouped convolution: the inputs of one group)."""
        return self._extent(self.in_axes, "in_axes")

    @property
    def n_out(self) -> int:
        """Product of the stored sizes of the out axes (in a stack: of one of its layers)."""
        return self._extent(self.out_axes, "out_axes")

    @property
    def fan_in(self) -> int:
        """Connections that reach one output unit of the dense layer."""
        inputs = self.n_in // self.groups if self.grouped_axes == "out" else self.n_in
        return inputs * self._kernel_size

    @property
    def fan_out(self) -> int:
        """Connections that leave one input unit of the dense layer."""
        outputs = self.n_out // self.groups if self.grouped_axes == "in" else self.n_out
        return outputs * self._kernel_size

    @property
    def _kernel_size(self) -> int:
        return math.prod(self.shape[axis] for axis in self.kernel_axes)

    def _extent(self, axes: tuple[int, ...], field: str) -> int:
        if not axes:
            raise ValueError(
                f"{field} of layer {self.name!r} is unknown: describe the layer with its {field} "
                f"(axes={{{self.name!r}: (in_axes, out_axes)}}), pin it dense, or choose a distribution and a "
                "structure that do not need axes (uniform, ERK)."
            )
        return math.prod(self.shape[axis] for axis in axes)


def check_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers as a tuple.

    Raises:
        ValueError: if there is no layer, or two layers have the same name.
    """
    if not layers:
        raise ValueError(
            "layers is empty: the model has nothing to sparsify. Check which parameters are chosen "
            "(include and exclude)."
        )
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"layers holds the name {name!r} more than once: names must be unique.")
    return tuple(layers)
