"""Layers that lie in shards, as `fully_shard` and `parallelize_module` give them: each process holds a part of a layer.

Only this module and those that import it know DTensors. They are imported once a model has some: PyTorch's own import
of them takes a second.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import Placement, _StridedShard


class Shards:
    """How a layer lies in shards, and which of them this process holds; it may be an empty one.

    Attributes:
        replicas: the groups of processes that hold the same shard.
        others: the groups of processes that hold other shards.
        device: the kind of device whose tensors these groups send.

    Args:
        param: the layer's parameter.
    """

    def __init__(self, param: DTensor) -> None:
        self._mesh, self._placements = param.device_mesh, param.placements
        self._shape, self.device = param.shape, param.device_mesh.device_type
        axes = dict(enumerate(self._placements))
        self.replicas = [self._mesh.get_group(axis) for axis, placement in axes.items() if placement.is_replicate()]
        self.others = [self._mesh.get_group(axis) for axis, placement in axes.items() if not placement.is_replicate()]
        self._rows = [_held(param, dim) for dim in range(param.ndim)]

    def indices(self) -> Tensor:
        """The int32 flat indices, in the whole layer, of the connections that are here."""
        index = torch.zeros((), dtype=torch.int32)
        for rows, size in zip(self._rows, self._shape, strict=True):
            index = index.unsqueeze(-1) * size + rows
        return index.reshape(-1)

    def total(self, counts: Tensor) -> Tensor:
        """The sum of counts over all shards. Replicas of a shard count once."""
        summed = counts.to(self.device)
        for group in self.others:
            dist.all_reduce(summed, group=group)
        return summed.to(counts.device)

    def part(self, whole: Tensor) -> Tensor:
        """What is here of an array of the layer's shape: a DTensor, or a plain tensor that every process has whole."""
        if isinstance(whole, DTensor):
            return whole.redistribute(self._mesh, self._placements).to_local().detach()
        for dim, rows in enumerate(self._rows):
            whole = whole.index_select(dim, rows.to(whole.device))
        return whole

    def joined(self, part: Tensor) -> DTensor:
        """The shards' arrays, which have the layer's axes and perhaps more, as one DTensor. Nothing is sent.

        Args:
            part: what is here, flat or with the shard's axes.
        """
        own = part.reshape(*(len(rows) for rows in self._rows), *part.shape[1:])
        shape = torch.Size((*self._shape, *part.shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(own, self._mesh, self._placements, run_check=False, shape=shape, stride=stride)


def _held(param: DTensor, dim: int) -> Tensor:
    """Which positions along a dimension are here, int32: as PyTorch itself cuts a range. Nothing is sent."""
    cuts: list[Placement] = []
    for placement in param.placements:
        if isinstance(placement, _StridedShard) and placement.dim == dim:
            cuts.append(_StridedShard(0, split_factor=placement.split_factor))
        else:
            cuts.append(Shard(0) if placement.is_shard(dim) else Replicate())
    positions = torch.arange(param.shape[dim], dtype=torch.int32)
    mesh = param.device_mesh
    return distribute_tensor(positions.to(mesh.device_type), mesh, cuts, src_data_rank=None).to_local().cpu()
