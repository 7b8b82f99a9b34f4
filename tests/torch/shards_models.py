"""Small trainings in shards, by PyTorch's own means, and their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import Recipe, RigL, UpdateSchedule
from tests.torch.helpers import mlp
from tests.torch.shards import hard_numbers, spread

SCHEDULE = UpdateSchedule(end=12, every=3, begin=1)
RIGL = RigL(0.7, schedule=SCHEDULE)
Training = tuple[nn.Module, Optimizer, SparseTraining]


def adamw(model: nn.Module) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), 0.01)


def started(model: nn.Module, recipe: Recipe = RIGL) -> Training:
    optimizer = adamw(model)
    return model, optimizer, sparsify(model, optimizer, recipe)


def by_fsdp(mesh: DeviceMesh, seed: int = 0, place: Callable[[Any], Any] | None = None) -> nn.Module:
    """In the order of FSDP2's own documentation: layers, then the whole."""
    model = mlp(seed=seed)
    for module in model:
        if isinstance(module, nn.Linear):
            fully_shard(module, mesh=mesh, shard_placement_fn=place)
    fully_shard(model, mesh=mesh, shard_placement_fn=place)
    return model


def by_tensor_parallel(tp: DeviceMesh) -> nn.Module:
    return parallelize_module(mlp(), tp, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def columns_where_even(param: nn.Parameter) -> Shard:
    return Shard(1 if param.ndim == 2 else 0)


def given_step(training: Training, step: int) -> None:
    """A step with gradients that depend on nothing but the step and the parameter."""
    model, optimizer, _ = training
    for number, param in enumerate(model.parameters()):
        gradient = hard_numbers(param.shape, torch.float32, torch.Generator().manual_seed(100 * step + number))
        param.grad = spread(gradient, param) if hasattr(param, "full_tensor") else gradient
    optimizer.step()


def error_of(act: Callable[[], Any]) -> str:
    try:
        act()
    except (TypeError, ValueError) as error:
        return str(error)
    return "no error"
