"""A layer in shards (`rigl_backends.torch.shards`), of which each process changes its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from rigl_backends.torch.layer import SparseLayer
from rigl_backends.torch.selection import namespace_of
from rigl_backends.torch.shards import Shards
from rigl_backends.torch.twin import local
from rigl_core.adapter import Layer, Recipe


class ShardedLayer(SparseLayer):
    """A layer whose parameter is a DTensor. Its arrays are those of this process's shard; counts are of all shards.

    So all processes must count at the same time: `active` and updates exchange counts, everything else is local.

    Attributes:
        shards: how the layer lies.
    """

    def __init__(self, layer: Layer, recipe: Recipe, param: nn.Parameter, optimizer: Optimizer) -> None:
        data: Any = param.detach()
        self.shards = Shards(data)
        self.xp = namespace_of(self.indices, layer.size, self.shards.total)
        super().__init__(layer, recipe, param, optimizer)

    def own(self, tensor: Tensor) -> Tensor:
        return local(tensor)

    def indices(self) -> Tensor:
        return self.shards.indices().to(self.param.device)

    def flat(self, array: Tensor) -> Tensor:
        """What is here of an array of the layer's shape: of a DTensor, or of a tensor that every process has whole."""
        return self.shards.part(array).reshape(-1)

    def shaped(self, array: Tensor) -> Tensor:
        return self.shards.joined(array)

    def resume(self, mask: Tensor, remembered: dict[str, Tensor]) -> None:
        shape = self.layer.shape
        super().resume(mask, {kind: self.flat(array.reshape(shape)) for kind, array in remembered.items()})

    @property
    def outside(self) -> int:
        """The number of weights of this shard outside the mask that are not 0. Processes may ask at any time."""
        return int(((self.weight != 0) & ~self.mask).sum())

    def check_shape(self) -> None:
        super().check_shape()
        param: Any = self.param
        grad: Any = param.grad
        if isinstance(grad, DTensor) and grad.placements != param.placements:
            raise ValueError(
                f"layer {self.layer.name!r} has a gradient with the placements {grad.placements}, and weights with "
                f"{param.placements}: redistribute the gradient before the step, or exclude the layer."
            )
