"""`SparseLinear`: a Linear module that holds only its active weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from rigl_backends.torch.active_module import SparseModule
from rigl_backends.torch.link import Floats, Sample
from rigl_backends.torch.unfused import leave_fused_path
from rigl_core.adapter import Index, Products, best_kernels


class SparseLinear(SparseModule):
    """A Linear module that holds only its active weights; see `SparseModule`.

    Between two such modules nothing is copied: their outputs lie feature by feature in memory, as they read inputs.
    """

    in_features: int
    out_features: int

    @classmethod
    def become(cls, module: nn.Module, index: Index, weight: Tensor) -> Self:
        own = super().become(module, index, weight)
        own.in_features, own.out_features = index.cols, index.rows
        leave_fused_path(own)
        return own

    @property
    def shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (..., outputs) of inputs (..., inputs); see `product` for what is refused."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """As that of a Linear module, and the density."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"density={self.density:.3g}"
        )

    def check(self, x: Tensor) -> None:
        super().check(x)
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"inputs have shape {tuple(x.shape)}: the module has {self.in_features} features.")

    def multiply(self, x: Tensor, weight: Floats) -> tuple[Tensor, Tensor]:
        features = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).t().contiguous()
        y = best_kernels().forward(self.index, weight, features.numpy(), threads=torch.get_num_threads())
        return torch.from_numpy(y).t().reshape(*x.shape[:-1], self.out_features), features

    def multiply_back(
        self, inputs: Tensor, weight: Floats, dy: Tensor, like: Tensor, *, needs_inputs: bool
    ) -> tuple[Tensor | None, Tensor, Sample]:
        outputs = dy.reshape(inputs.shape[1], self.out_features).t().contiguous()
        x, d = inputs.numpy(), outputs.numpy()
        dx, gradient = best_kernels().backward(
            self.index, weight, x, d, needs_inputs=needs_inputs, threads=torch.get_num_threads()
        )
        own = None if dx is None else torch.from_numpy(dx).t().reshape(like.shape)
        return own, torch.from_numpy(gradient), (x, d)

    def products(self, active: Floats, samples: Sequence[Sample]) -> Products:
        return Products(
            active,
            samples,
            inputs_first=self.index.inputs_first,
            kernels=best_kernels(),
            threads=torch.get_num_threads(),
        )
