"""`sparse_conv`: the two-dimensional convolution of images with the active weights of a kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from rigl_backends.jax.active_weight import ActiveWeight, Layout
from rigl_backends.jax.link import Floats, Link, Sample
from rigl_backends.jax.sparse_product import check, product
from rigl_core.adapter import Convolution, Index, convolve, convolve_back, pair_of

Pair = tuple[int, int]
Padding = str | int | Sequence[int | Pair]


def sparse_conv(
    weight: ActiveWeight | Array,
    x: Array,
    *,
    padding: Padding,
    stride: int | Pair = 1,
    dilation: int | Pair = 1,
    groups: int = 1,
    inputs_first: bool = True,
    channels_last: bool = True,
) -> Array:
    """The outputs of a convolution without its bias, as far as weights are active.

    It takes the place of ``jax.lax.conv_general_dilated(x, weight, stride, padding, rhs_dilation=dilation,
    feature_group_count=groups)``, and works inside ``jit``, ``grad`` and ``scan``, on CPUs. It is differentiable once.
    The kernels read images (samples, channels, height, width): with ``channels_last``, XLA transposes around the call;
    in a compiled step not between two such calls.

    Args:
        weight: the active weights; or a dense array, for layers that keep their masks.
        x: images (..., height, width, channels), float32.
        padding: ``"SAME"``, ``"SAME_LOWER"`` or ``"VALID"`` as in JAX; or the zeros at each side: a number, or for
            height and width a number each, or a pair (before, after) each. There is no default, since flax's is
            ``"SAME"`` and that of other libraries 0.
        stride: the steps from one output to the next one; a number, or two for height and width.
        dilation: the steps from one position of the kernel to the next one; the same.
        groups: the groups that the channels are in; outputs see the inputs of their own group.
        inputs_first: whether the dense array is (height, width, inputs, outputs), as in flax, and not (outputs, inputs,
            height, width), as in equinox.
        channels_last: whether the images are (..., height, width, channels), as in flax, and not (..., channels,
            height, width), as in equinox. So are the outputs.

    Returns:
        Outputs (..., height, width, channels), float32.

    Raises:
        TypeError, ValueError: if the images or the weights have another dtype, device or size than they can have, or
            if weights were averaged; or naming the option.
    """
    kernel = _kernel_of(weight, inputs_first=inputs_first)
    if x.ndim < 3:
        raise ValueError(f"x has shape {x.shape}: give images (..., {_axes(channels_last)}).")
    size = x.shape[-3:-1] if channels_last else x.shape[-2:]
    steps, positions = pair_of("stride", stride, 1), pair_of("dilation", dilation, 1)
    convolution = Convolution(kernel, steps, _padding(padding, size, kernel, steps, positions), positions, groups)
    images = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
    if isinstance(weight, ActiveWeight):
        check(weight, x, inputs_first=inputs_first)
        _check_channels(weight.layout, x, groups, channels_last=channels_last)
        y = _of_active(convolution, weight, images, channels_last=channels_last)
    else:
        y = _of_dense(convolution, weight, images, inputs_first=inputs_first, channels_last=channels_last)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def _of_active(convolution: Convolution, weight: ActiveWeight, images: Array, *, channels_last: bool) -> Array:
    kind = _Conv(convolution)
    if not channels_last:
        return product(kind, weight, images)
    return jnp.moveaxis(product(kind, weight, jnp.moveaxis(images, -1, 1)), 1, -1)


def _of_dense(
    convolution: Convolution, weight: Array, images: Array, *, inputs_first: bool, channels_last: bool
) -> Array:
    axes = "NHWC" if channels_last else "NCHW"
    return lax.conv_general_dilated(
        images,
        weight,
        convolution.stride,
        convolution.padding,
        rhs_dilation=convolution.dilation,
        dimension_numbers=(axes, "HWIO" if inputs_first else "OIHW", axes),
        feature_group_count=convolution.groups,
    )


@dataclass(frozen=True)
class _Conv:
    """The kernels' layout is (samples, channels, height, width)."""

    convolution: Convolution
    function: ClassVar[str] = "sparse_conv"
    inputs: ClassVar[str] = "images after any axes of samples"

    def outputs(self, layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.convolution.windows(shape, layout.rows).shape  # type: ignore[arg-type]

    def forward(self, link: Link, index: Index, values: Floats, x: Floats) -> Floats:
        return convolve(self.convolution, index, values, x, kernels=link.convolutions, threads=link.threads)

    def backward(
        self, link: Link, index: Index, values: Floats, x: Floats, dy: Floats, *, needs_inputs: bool
    ) -> tuple[Floats | None, Floats, Sample]:
        options: dict[str, Any] = {"kernels": link.convolutions, "threads": link.threads, "needs_inputs": needs_inputs}
        return convolve_back(self.convolution, index, values, x, dy, **options)


def _kernel_of(weight: ActiveWeight | Array, *, inputs_first: bool) -> Pair:
    """The height and the width of the kernel."""
    if isinstance(weight, ActiveWeight):
        kernel = weight.layout.kernel
        if kernel is None:
            raise ValueError(f"the weight of {weight.layout.name!r} is a matrix: call sparse_linear with it.")
        return kernel
    if weight.ndim != 4:
        raise ValueError(f"weight has shape {weight.shape}: give the kernel of a two-dimensional convolution.")
    height, width = weight.shape[:2] if inputs_first else weight.shape[2:]
    return height, width


def _check_channels(layout: Layout, x: Array, groups: int, *, channels_last: bool) -> None:
    if not isinstance(groups, int) or groups < 1 or layout.rows % groups:
        raise ValueError(f"groups is {groups!r}: layer {layout.name!r} has {layout.rows} outputs, in groups of a size.")
    channels = layout.channels * groups
    if x.shape[-1 if channels_last else -3] != channels:
        sizes = f"height, width, {channels}" if channels_last else f"{channels}, height, width"
        raise ValueError(f"x has shape {x.shape}: layer {layout.name!r} reads images (..., {sizes}).")


def _padding(padding: Padding, size: Sequence[int], kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """The zeros above and below, and left and right."""
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "SAME_LOWER", "VALID"):
            raise ValueError(f"padding is {padding!r}: give 'SAME', 'SAME_LOWER', 'VALID', or numbers of zeros.")
        window = [step * (length - 1) + 1 for step, length in zip(dilation, kernel, strict=True)]
        vertical, horizontal = (
            (int(one), int(other)) for one, other in lax.padtype_to_pads(size, window, stride, padding)
        )
        return vertical, horizontal
    sides: tuple[Any, ...] = tuple(padding) if isinstance(padding, Sequence) else (padding, padding)
    if len(sides) != 2:
        raise ValueError(f"padding is {padding!r}: give a number, or two for height and width, or a pair for each.")
    return pair_of("padding", sides[0], 0), pair_of("padding", sides[1], 0)


def _axes(channels_last: bool) -> str:
    return "height, width, channels" if channels_last else "channels, height, width"
