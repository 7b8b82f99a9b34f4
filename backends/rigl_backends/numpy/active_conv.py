"""Convolutions that hold only their active weights, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.active import ActiveLayer, SparseProducts
from rigl_core.adapter import Convolution, ConvolutionProducts, best_convolutions, convolve, convolve_back, pair_of

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
        self._check(x)
        kernels, threads = self._convolutions, self.threads
        return convolve(convolution, self.index, self._layer.weight, x, kernels=kernels, threads=threads)

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
        convolution = self._convolution(stride, padding, dilation)
        self._check(x)
        shape = convolution.windows(x.shape, self.index.rows).shape
        if dy.dtype != np.float32 or dy.shape != shape:
            raise ValueError(f"dy is {dy.dtype} of shape {dy.shape}: the outputs are float32 of shape {shape}.")
        options: dict[str, Any] = {"kernels": self._convolutions, "threads": self.threads, "needs_inputs": needs_inputs}
        dx, gradient, sample = convolve_back(
            convolution, self.index, self._layer.weight, x, np.ascontiguousarray(dy), **options
        )
        own = ConvolutionProducts(
            gradient,
            [sample],
            index=self.index,
            kernels=self._kernels,
            convolutions=self._convolutions,
            threads=self.threads,
        )
        return dx, own

    def _convolution(self, stride: int | Pair, padding: int | Pair, dilation: int | Pair) -> Convolution:
        layer = self._layer.layer
        height, width = (layer.shape[axis] for axis in layer.kernel_axes)
        above, left = pair_of("padding", padding, 0)
        steps = pair_of("stride", stride, 1), pair_of("dilation", dilation, 1)
        return Convolution((height, width), steps[0], ((above, above), (left, left)), steps[1], layer.groups)

    def _check(self, x: Any) -> None:
        layer = self._layer.layer
        channels = self.index.cols // self.index.kernel * layer.groups
        if x.dtype != np.float32:
            raise TypeError(f"x is {x.dtype}: the kernels of sparse layers multiply float32.")
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"x has shape {x.shape}: layer {layer.name!r} reads (samples, {channels}, height, width).")
