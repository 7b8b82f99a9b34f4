"""`SparseConv2d`: a two-dimensional convolution that holds only its active weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rigl_backends.torch.active_module import SparseModule
from rigl_backends.torch.link import Floats, Sample
from rigl_core.adapter import Convolution, ConvolutionProducts, best_convolutions, best_kernels

Pair = tuple[int, int]
Shape = tuple[int, int, int, int]


class SparseConv2d(SparseModule):
    """A Conv2d module that holds only its active weights; see `SparseModule`.

    Its outputs lie in memory as those of Conv2d do: channels last if the inputs do so, else channels first.
    """

    in_channels: int
    out_channels: int
    kernel_size: Pair
    stride: Pair
    padding: str | Pair
    dilation: Pair
    groups: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    @property
    def convolution(self) -> Convolution:
        """What it does, as the kernels see it."""
        return Convolution(self.kernel_size, self.stride, self._padding(), self.dilation, self.groups)

    def _padding(self) -> tuple[Pair, Pair]:
        if self.padding == "same":
            missing = [step * (size - 1) for step, size in zip(self.dilation, self.kernel_size, strict=True)]
            above, left = (number // 2 for number in missing)
            return (above, missing[0] - above), (left, missing[1] - left)
        height, width = (0, 0) if isinstance(self.padding, str) else self.padding
        return (height, height), (width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (samples, channels, height, width) of inputs, or of one input without the axis of samples."""
        y = self.product(x if x.dim() == 4 else x.unsqueeze(0))
        y = y if self.bias is None else y + self.bias[:, None, None]
        return y if x.dim() == 4 else y.squeeze(0)

    def extra_repr(self) -> str:
        """As that of a Conv2d module, and the density."""
        return f"{nn.Conv2d.extra_repr(self)}, density={self.density:.3g}"  # type: ignore[arg-type, no-untyped-call]

    def check(self, x: Tensor) -> None:
        super().check(x)
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"inputs have shape {tuple(x.shape)}: the module takes (samples, {self.in_channels}, height, width)."
            )

    def multiply(self, x: Tensor, weight: Floats) -> tuple[Tensor, Tensor]:
        convolution, threads = self.convolution, torch.get_num_threads()
        # Planes that are the inputs share their memory, and torch must know that, since users may write there.
        planes = x.contiguous() if convolution.is_plain else torch.from_numpy(convolution.planes(x.numpy()))
        windows = convolution.windows(_shape_of(x), self.out_channels)
        y = best_convolutions().forward(self.index, weight, planes.numpy(), windows, threads=threads)
        return torch.from_numpy(y).contiguous(memory_format=_format_of(x)), planes

    def multiply_back(
        self, inputs: Tensor, weight: Floats, dy: Tensor, like: Tensor, *, needs_inputs: bool
    ) -> tuple[Tensor | None, Tensor, Sample]:
        convolution, planes, d = self.convolution, inputs.numpy(), dy.contiguous().numpy()
        windows = convolution.windows(_shape_of(like), self.out_channels)
        dplanes, gradient = best_convolutions().backward(
            self.index, weight, planes, windows, d, needs_inputs=needs_inputs, threads=torch.get_num_threads()
        )
        own = None if dplanes is None else torch.from_numpy(convolution.inputs(dplanes, _shape_of(like)))
        if own is not None:
            own = own.contiguous(memory_format=_format_of(like))
        return own, torch.from_numpy(gradient), (planes, windows, d)

    def products(self, active: Floats, samples: Sequence[Sample]) -> ConvolutionProducts:
        return ConvolutionProducts(
            active,
            samples,
            index=self.index,
            kernels=best_kernels(),
            convolutions=best_convolutions(),
            threads=torch.get_num_threads(),
        )


def _shape_of(images: Tensor) -> Shape:
    samples, channels, height, width = images.shape
    return samples, channels, height, width


def _format_of(images: Tensor) -> torch.memory_format:
    """How images lie in memory."""
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
