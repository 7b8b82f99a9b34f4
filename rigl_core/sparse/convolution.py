"""A convolution as a product of a matrix: where each of its columns reads its inputs.

The matrix has a row for each output channel, and a column for each input channel and position of the kernel, channel by
channel. A sample of the product is an output position. Inputs lie in *planes*: image by image, channel by channel,
padded, and where the convolution skips positions cut into one plane for each remainder. So what a column reads for the
outputs of one line lies side by side in memory, and nothing is copied once for each position of the kernel. Without
padding and stride the planes are the inputs themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rigl_core.sparse.index import Floats

Pair = tuple[int, int]
Shape = tuple[int, int, int, int]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """Where a convolution reads and writes, in flat arrays.

    Column c sees at output position p the number at ``starts[c] + positions[p]`` of the planes. The output of row r is
    at ``out_starts[r] + out_positions[p]``.

    Attributes:
        starts: int64 (cols,): for each column of the first group.
        positions: int64 (positions,): for each output position, in the order of (image, line, place in the line).
        out_starts: int64 (rows,).
        out_positions: int64 (positions,).
        kernel: the positions of the kernel.
        groups: the groups of channels.
        step: numbers from the planes of one group to those of the next one.
        size: the numbers of the planes.
        shape: of the outputs: (images, channels, height, width).
    """

    starts: Places
    positions: Places
    out_starts: Places
    out_positions: Places
    kernel: int
    groups: int
    step: int
    size: int
    shape: Shape

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

    @property
    def is_plain(self) -> bool:
        """Whether the planes of inputs are the inputs themselves."""
        return self.stride == (1, 1) and self.padding == ((0, 0), (0, 0))

    def windows(self, shape: Shape, rows: int) -> Windows:
        """Where inputs are read, and outputs written.

        Args:
            shape: of the inputs: (images, channels, height, width).
            rows: the channels of the outputs.

        Raises:
            ValueError: if the inputs are smaller than the kernel.
        """
        return _windows(self, shape, rows)

    def planes(self, x: Floats) -> Floats:
        """The planes of inputs (images, channels, height, width), which may have any strides."""
        if self.is_plain:
            return np.ascontiguousarray(x)
        planes = np.zeros((*x.shape[:2], *self.stride, *self._plane(*x.shape[2:])), np.float32)
        for plane, part in self._parts(planes, x):
            plane[...] = part
        return planes

    def inputs(self, planes: Floats, shape: Shape) -> Floats:
        """The inputs of a shape (images, channels, height, width), or their gradient, that planes hold."""
        if self.is_plain:
            return planes
        x = np.empty(shape, np.float32)
        for plane, part in self._parts(planes, x):
            part[...] = plane
        return x

    def _parts(self, planes: Floats, x: Floats) -> Iterator[tuple[Floats, Floats]]:
        """What is not padding in each plane, and the inputs there."""
        (down, right), ((above, _), (left, _)) = self.stride, self.padding
        for i in range(down):
            lines, rows = _every(i, down, above, x.shape[2])
            for j in range(right):
                places, columns = _every(j, right, left, x.shape[3])
                yield planes[:, :, i, j, lines, places], x[:, :, rows, columns]

    def _plane(self, height: int, width: int) -> Pair:
        """The lines of a plane, and the places of a line."""
        (above, below), (left, right) = self.padding
        return -(-(height + above + below) // self.stride[0]), -(-(width + left + right) // self.stride[1])


def _every(remainder: int, step: int, before: int, size: int) -> tuple[slice, slice]:
    """Of the places of a padded line with one remainder: which are not padding, and which inputs these hold."""
    first = max(0, -(-(before - remainder) // step))
    inputs = range(first * step + remainder - before, size, step)
    return slice(first, first + len(inputs)), slice(inputs.start, None, step)


@lru_cache(maxsize=64)  # ResNet-50 has 20 kinds, in training and once more in evaluation
def _windows(convolution: Convolution, shape: Shape, rows: int) -> Windows:
    """`Convolution.windows`; the arrays are made once for each shape."""
    images, channels, height, width = shape
    lines, places = convolution._plane(height, width)
    out = convolution.outputs((height, width))
    if min(out) < 1:
        raise ValueError(
            f"inputs have height and width {(height, width)}, which the kernel {convolution.kernel} with padding "
            f"{convolution.padding} and dilation {convolution.dilation} does not fit into."
        )
    (down, right), plane = convolution.stride, lines * places
    line, place = (step * np.arange(size) for step, size in zip(convolution.dilation, convolution.kernel, strict=True))
    first = line % down * right * plane + line // down * places
    channel, group = down * right * plane, channels // convolution.groups
    return Windows(
        starts=_sums(channel * np.arange(group), first, place % right * plane + place // right),
        positions=_sums(channels * channel * np.arange(images), places * np.arange(out[0]), np.arange(out[1])),
        out_starts=_sums(out[0] * out[1] * np.arange(rows)),
        out_positions=_sums(rows * out[0] * out[1] * np.arange(images), np.arange(out[0] * out[1])),
        kernel=line.size * place.size,
        groups=convolution.groups,
        step=group * channel,
        size=images * channels * channel,
        shape=(images, rows, *out),
    )


def _sums(*parts: npt.NDArray[np.intp]) -> Places:
    """The sums of all combinations; the last part changes fastest."""
    total = np.zeros(1, np.int64)
    for part in parts:
        total = np.add.outer(total, part).reshape(-1)
    return total.astype(np.int64)
