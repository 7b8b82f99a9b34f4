"""How the host multiplies images by the active weights of a two-dimensional convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rigl_backends.tf.multiplying import Floats, Sample
from rigl_core.adapter import (
    Convolution,
    ConvolutionProducts,
    Index,
    best_convolutions,
    best_kernels,
    convolve,
    convolve_back,
)

Pair = tuple[int, int]


@dataclass(frozen=True)
class ImageMultiplier:
    """Inputs and outputs are (samples, height, width, channels), or with their channels first.

    The core reads images with their channels first. The kernels transpose them image by image, which takes less time
    than a transposition by TensorFlow or NumPy.

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
        images = self._channels_first(x, threads)
        convolution, kernels = self._convolution(images.shape[2:]), best_convolutions()
        return self._as_given(convolve(convolution, index, values, images, kernels=kernels, threads=threads), threads)

    def backward(
        self, index: Index, values: Floats, x: Floats, dy: Floats, *, threads: int
    ) -> tuple[Floats, Floats, Sample]:
        """See `Multiplier`."""
        images, outputs = self._channels_first(x, threads), self._channels_first(dy, threads)
        convolution, kernels = self._convolution(images.shape[2:]), best_convolutions()
        dx, gradient, sample = convolve_back(
            convolution, index, values, images, outputs, kernels=kernels, threads=threads
        )
        assert dx is not None
        return self._as_given(dx, threads), gradient, sample

    def gradient(self, index: Index, active: Floats, samples: Sequence[Any], *, threads: int) -> ConvolutionProducts:
        """See `Multiplier`."""
        kernels, convolutions = best_kernels(), best_convolutions()
        return ConvolutionProducts(
            active, samples, index=index, kernels=kernels, convolutions=convolutions, threads=threads
        )

    def _channels_first(self, images: Floats, threads: int) -> Any:
        if self.channels_first:
            return np.ascontiguousarray(images)
        samples, height, width, channels = images.shape
        own = _transposed(images.reshape(samples, height * width, channels), threads)
        return own.reshape(samples, channels, height, width)

    def _as_given(self, images: Floats, threads: int) -> Floats:
        if self.channels_first:
            return images
        samples, channels, height, width = images.shape
        own = _transposed(images.reshape(samples, channels, height * width), threads)
        return own.reshape(samples, height, width, channels)

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


def _transposed(matrices: Floats, threads: int) -> Floats:
    """Copies of some matrices (samples, lines, columns), transposed."""
    samples, lines, columns = matrices.shape
    result, kernels = np.empty((samples, columns, lines), np.float32), best_kernels()
    for own, matrix in zip(result, np.ascontiguousarray(matrices), strict=True):
        own[...] = kernels.transposed(matrix, threads=threads)
    return result
