"""What the processes of a training decide together. A training in one process asks nobody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from rigl_backends.torch.namespace import all_finite
from rigl_backends.torch.state import gradients_of
from rigl_backends.torch.twin import is_sharded, local, params_of


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


def gradients_are_finite(optimizer: Optimizer) -> bool:
    """Whether all gradients are finite, in all processes, also those of dense parameters, since clipping mixes them."""
    overflow = getattr(optimizer, "found_inf", None)  # a gradient scaler's finding, for fused optimizers
    found = [] if overflow is None else [torch.where(overflow != 0, torch.inf, overflow)]
    finite = all_finite([*found, *(_summed(gradient) for _, gradient in gradients_of(optimizer))])
    return agreed(finite, params_of(optimizer))


def _summed(gradient: Tensor) -> Tensor:
    """What is here of a gradient. If it is a DTensor whose parts are yet to be added up, all processes add them up."""
    held: Any = gradient
    if is_sharded(gradient) and any(placement.is_partial() for placement in held.placements):
        return held.full_tensor()  # type: ignore[no-any-return]
    return local(gradient).detach()
