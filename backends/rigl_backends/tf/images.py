"""How the host multiplies images by the active weights of a two-dimensional convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rigl_backends.tf.multiplying import Floats, Sample
from rigl_core.adapter import Convolution, ConvolutionProducts, Index, best_convolutions, best_kernels

Pair = tuple[int, int]


@dataclass(frozen=True)
class ImageMultiplier:
    """Inputs and outputs are (samples, height, width, channels), or with their channels first.

    The core reads images with their channels first. Planes are copies anyway where there is padding or a stride, so
    NumPy transposes while it makes them; it takes as long as TensorFlow does, and outputs take less.

    Attributes:
        kernel: the height and width of the kernel.
        strides: from one output to the next one.
        padding: "same" or "valid".
        dilation: from one position of the kernel to the next one.
        groups: of the channels.
        channels_first: whether the channels are the second axis of images.
    """

    kernel: Pair
    strides: Pair
    padding: str
    dilation: Pair
    groups: int
    channels_first: bool

    def forward(self, index: Index, values: Floats, x: Floats, *, threads: int) -> Floats:
        """See `Multiplier`."""
        images = self._channels_first(x)
        convolution = self._convolution(images.shape[2:])
        planes, windows = convolution.planes(images), convolution.windows(images.shape, index.rows)
        return self._as_given(best_convolutions().forward(index, values, planes, windows, threads=threads))

    def backward(
        self, index: Index, values: Floats, x: Floats, dy: Floats, *, threads: int
    ) -> tuple[Floats, Floats, Sample]:
        """See `Multiplier`."""
        images, outputs = self._channels_first(x), np.ascontiguousarray(self._channels_first(dy))
        convolution = self._convolution(images.shape[2:])
        planes, windows = convolution.planes(images), convolution.windows(images.shape, index.rows)
        dplanes, gradient = best_convolutions().backward(index, values, planes, windows, outputs, threads=threads)
        assert dplanes is not None
        dx = self._as_given(convolution.inputs(dplanes, images.shape))
        return dx, gradient, (planes, windows, outputs)

    def gradient(self, index: Index, active: Floats, samples: Sequence[Any], *, threads: int) -> ConvolutionProducts:
        """See `Multiplier`."""
        kernels, convolutions = best_kernels(), best_convolutions()
        return ConvolutionProducts(
            active, samples, index=index, kernels=kernels, convolutions=convolutions, threads=threads
        )

    def _channels_first(self, images: Floats) -> Any:
        return images if self.channels_first else images.transpose(0, 3, 1, 2)

    def _as_given(self, images: Floats) -> Floats:
        return images if self.channels_first else np.ascontiguousarray(images.transpose(0, 2, 3, 1))

    def _convolution(self, size: Pair) -> Convolution:
        above, left = (self._around(length, axis) for axis, length in enumerate(size))
        return Convolution(self.kernel, self.strides, (above, left), self.dilation, self.groups)

    def _around(self, length: int, axis: int) -> Pair:
        """The zeros before and after a line; of those that "same" needs, the odd one comes after it."""
        if self.padding == "valid":
            return 0, 0
        step = self.strides[axis]
        read = (-(-length // step) - 1) * step + self.dilation[axis] * (self.kernel[axis] - 1) + 1
        missing = max(read - length, 0)
        return missing // 2, missing - missing // 2
