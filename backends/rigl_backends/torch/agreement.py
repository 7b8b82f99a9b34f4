"""What the processes of a training decide together. A training in one process asks nobody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rigl_backends.torch.twin import is_sharded, local


def agreed(condition: bool, tensors: Iterable[Tensor]) -> bool:
    """Whether a condition holds in all processes that hold a part, or a replica, of any of these tensors.

    All of them must ask at the same time. Tensors that are no DTensors ask nobody.
    """
    shards: list[Any] = [tensor for tensor in tensors if is_sharded(tensor)]
    meshes = dict.fromkeys(tensor.device_mesh for tensor in shards)
    groups = {group.group_name: (group, mesh.device_type) for mesh in meshes for group in mesh.get_all_groups()}
    for group, device in groups.values():
        flag = torch.tensor(condition, dtype=torch.int32, device=device)
        dist.all_reduce(flag, dist.ReduceOp.MIN, group=group)
        condition = bool(flag)
    return condition


def summed(gradient: Tensor) -> Tensor:
    """What is here of a gradient. A DTensor whose parts are yet to be added up is so, in all processes."""
    held: Any = gradient
    if is_sharded(gradient) and any(placement.is_partial() for placement in held.placements):
        return held.full_tensor()  # type: ignore[no-any-return]
    return local(gradient).detach()
