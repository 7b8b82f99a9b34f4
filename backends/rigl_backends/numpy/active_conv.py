"""Convolutions that hold only their active weights, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.active import ActiveLayer, SparseProducts
from rigl_core.adapter import Convolution, ConvolutionProducts, best_convolutions

Floats = npt.NDArray[np.float32]
Pair = tuple[int, int]


class SparseConv(SparseProducts):
    """The products of a two-dimensional convolution.

    Inputs and outputs are (samples, channels, height, width), float32.
    """

    def __init__(self, layer: ActiveLayer) -> None:
        super().__init__(layer)
        self._convolutions = best_convolutions()

    def __call__(
        self, x: Floats, *, stride: int | Pair = 1, padding: int | Pair = 0, dilation: int | Pair = 1
    ) -> Floats:
        """The outputs, without a bias.

        Args:
            x: inputs (samples, channels, height, width).
            stride: the steps from one output to the next one; a number, or two for height and width.
            padding: the zeros at each side.
            dilation: the steps from one position of the kernel to the next one.

        Raises:
            TypeError, ValueError: if ``x`` is not float32, or has another number of channels, or is smaller than the
                kernel.
        """
        self._layer.check()
        convolution = self._convolution(stride, padding, dilation)
        windows, planes = convolution.windows(self._shape(x), self.index.rows), convolution.planes(x)
        return self._convolutions.forward(self.index, self._layer.weight, planes, windows, threads=self.threads)

    def backward(
        self,
        x: Floats,
        dy: Floats,
        *,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        needs_inputs: bool = True,
    ) -> tuple[Floats | None, ConvolutionProducts]:
        """The gradients.

        Args:
            x: the inputs of the call.
            dy: the gradient of its outputs (samples, channels, height, width).
            stride, padding, dilation: as in the call.
            needs_inputs: whether the gradient of the inputs is wanted.

        Returns:
            The gradient of the inputs, or None; and that of the weights, for the optimizer's ``step``. Add those of
            several calls or micro-batches. It keeps ``x`` and ``dy``, of which an update makes the dense gradient.

        Raises:
            TypeError, ValueError: as the call; or if ``dy`` has another dtype or shape than the outputs.
        """
        self._layer.check()
        convolution, shape = self._convolution(stride, padding, dilation), self._shape(x)
        windows, planes = convolution.windows(shape, self.index.rows), convolution.planes(x)
        if dy.dtype != np.float32 or dy.shape != windows.shape:
            raise ValueError(f"dy is {dy.dtype} of shape {dy.shape}: the outputs are float32 of shape {windows.shape}.")
        outputs = np.ascontiguousarray(dy)
        dplanes, gradient = self._convolutions.backward(
            self.index, self._layer.weight, planes, windows, outputs, needs_inputs=needs_inputs, threads=self.threads
        )
        own = ConvolutionProducts(
            gradient,
            [(planes, windows, outputs)],
            index=self.index,
            kernels=self._kernels,
            convolutions=self._convolutions,
            threads=self.threads,
        )
        return (None if dplanes is None else convolution.inputs(dplanes, shape)), own

    def _convolution(self, stride: int | Pair, padding: int | Pair, dilation: int | Pair) -> Convolution:
        layer = self._layer.layer
        height, width = (layer.shape[axis] for axis in layer.kernel_axes)
        above, left = _pair("padding", padding, 0)
        steps = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
        return Convolution((height, width), steps[0], ((above, above), (left, left)), steps[1], layer.groups)

    def _shape(self, x: Any) -> tuple[int, int, int, int]:
        layer = self._layer.layer
        channels = self.index.cols // self.index.kernel * layer.groups
        if x.dtype != np.float32:
            raise TypeError(f"x is {x.dtype}: the kernels of sparse layers multiply float32.")
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"x has shape {x.shape}: layer {layer.name!r} reads (samples, {channels}, height, width).")
        samples, _, height, width = x.shape
        return samples, channels, height, width


def _pair(name: str, option: Any, least: int) -> Pair:
    pair = (option, option) if isinstance(option, int | np.integer) else option
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(_is_whole(number, least) for number in pair):
        raise ValueError(f"{name} is {option!r}: give a whole number of at least {least}, or two of them.")
    return int(pair[0]), int(pair[1])


def _is_whole(number: Any, least: int) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and int(number) >= least
