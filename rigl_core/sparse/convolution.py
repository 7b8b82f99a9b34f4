"""A convolution as a product of a matrix: where each of its columns reads its inputs.

The matrix has a row for each output channel, and a column for each input channel and position of the kernel, channel by
channel. A sample of the product is an output position. The inputs lie in *planes*: channel by channel, padded, and
where the convolution skips positions cut into one plane for each remainder. So what a column reads for the outputs of
one line lies side by side in memory, and nothing is copied once for each position of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rigl_core.sparse.index import Floats

Pair = tuple[int, int]
Places = npt.NDArray[np.int64]

SLACK = 8
"""Floats behind the planes of a channel, which the loops may read, and write back as they are."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Where a convolution reads: column c sees at output position p the number at ``starts[c] + positions[p]``.

    Attributes:
        starts: int64 (cols,): for each column of the first group.
        positions: int64 (positions,): for each output, in the order of (sample, line, place in the line).
        kernel: the positions of the kernel.
        groups: the groups of channels.
        step: numbers from the planes of one group to those of the next one.
        outputs: samples, lines and places of the outputs.
    """

    starts: Places
    positions: Places
    kernel: int
    groups: int
    step: int
    outputs: tuple[int, int, int]

    def starts_of(self, group: int) -> Places:
        """The starts of a group."""
        return self.starts + group * self.step


@dataclass(frozen=True)
class Convolution:
    """What a two-dimensional convolution does, besides its weights.

    Attributes:
        kernel: the height and width of the kernel.
        stride: the steps from one output to the next one, downwards and to the right.
        padding: the zeros above and below, and left and right of the inputs.
        dilation: the steps from one position of the kernel to the next one.
        groups: the groups that the channels are in; outputs see the inputs of their own group.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    def outputs(self, size: Pair) -> Pair:
        """The height and width of the outputs for inputs of a height and width; below 1 if there are none."""
        height, width = (
            (length + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1
            for length, padding, dilation, kernel, stride in zip(
                size, self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return height, width

    def windows(self, shape: tuple[int, int, int, int]) -> Windows:
        """Where inputs of a shape (samples, channels, height, width) are read.

        Raises:
            ValueError: if the inputs are smaller than the kernel.
        """
        return _windows(self, shape)

    def planes(self, x: Floats) -> Floats:
        """The planes of inputs, for the kernels.

        Args:
            x: inputs (samples, channels, height, width), with any strides.

        Returns:
            An array (channels, numbers of a channel).
        """
        planes = np.zeros((x.shape[1], self._channel(x.shape) + SLACK), np.float32)
        for plane, part in self._parts(planes, x):
            plane[...] = part
        return planes

    def inputs(self, planes: Floats, shape: tuple[int, int, int, int]) -> Floats:
        """The inputs (samples, channels, height, width), or their gradient, that planes hold.

        Args:
            planes: as `planes` makes them.
            shape: of the inputs.
        """
        x = np.empty(shape, np.float32)
        for plane, part in self._parts(planes, x):
            part[...] = plane
        return x

    def _parts(self, planes: Floats, x: Floats) -> Iterator[tuple[Floats, Floats]]:
        """What is not padding in each plane, and the inputs there: both (channels, samples, lines, places)."""
        own = planes[:, : self._channel(x.shape)]
        parts = own.reshape(x.shape[1], *self.stride, x.shape[0], *self._plane(*x.shape[2:]))
        (down, right), ((above, _), (left, _)) = self.stride, self.padding
        for i in range(down):
            lines, rows = _every(i, down, above, x.shape[2])
            for j in range(right):
                places, columns = _every(j, right, left, x.shape[3])
                yield parts[:, i, j, :, lines, places], x[:, :, rows, columns].transpose(1, 0, 2, 3)

    def _plane(self, height: int, width: int) -> Pair:
        """The lines of a plane, and the places of a line."""
        (above, below), (left, right) = self.padding
        return -(-(height + above + below) // self.stride[0]), -(-(width + left + right) // self.stride[1])

    def _channel(self, shape: tuple[int, ...]) -> int:
        """The numbers of a channel's planes."""
        lines, places = self._plane(*shape[2:])
        return self.stride[0] * self.stride[1] * shape[0] * lines * places


def _every(remainder: int, step: int, before: int, size: int) -> tuple[slice, slice]:
    """Of the places of a padded line with one remainder: which are not padding, and which inputs these hold."""
    first = max(0, -(-(before - remainder) // step))
    inputs = range(first * step + remainder - before, size, step)
    return slice(first, first + len(inputs)), slice(inputs.start, None, step)


@lru_cache(maxsize=16)
def _windows(convolution: Convolution, shape: tuple[int, int, int, int]) -> Windows:
    """`Convolution.windows`; the arrays are made once for each shape."""
    samples, channels, height, width = shape
    lines, places = convolution._plane(height, width)
    out = convolution.outputs((height, width))
    if min(out) < 1:
        raise ValueError(
            f"inputs have height and width {(height, width)}, which the kernel {convolution.kernel} with padding "
            f"{convolution.padding} and dilation {convolution.dilation} does not fit into."
        )
    (down, right), plane = convolution.stride, samples * lines * places
    line, place = (step * np.arange(size) for step, size in zip(convolution.dilation, convolution.kernel, strict=True))
    in_channel = np.add.outer(
        line % down * right * plane + line // down * places, place % right * plane + place // right
    )
    channel = convolution._channel(shape) + SLACK
    group = channels // convolution.groups
    starts = np.add.outer(channel * np.arange(group), in_channel)
    sample = lines * places * np.arange(samples)
    positions = np.add.outer(np.add.outer(sample, places * np.arange(out[0])), np.arange(out[1]))
    flat_starts, flat_positions = (array.astype(np.int64).reshape(-1) for array in (starts, positions))
    return Windows(flat_starts, flat_positions, in_channel.size, convolution.groups, group * channel, (samples, *out))
