"""Four processes on the CPU that hold layers in shards; each writes what it finds to a file."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import Placement, _StridedShard
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import MAGNITUDE, MOMENTUM, SCORES, GradualPruning, Recipe, RigL, SETAsPublished, Static, UpdateSchedule
from tests.torch.helpers import METHODS, same_bits

WORLD = 4
STEPS = 4
SCHEDULE = UpdateSchedule(end=4, every=2, begin=1)


class Layout(NamedTuple):
    """How parameters lie: the sizes of a mesh, and a placement for each of its axes."""

    mesh: tuple[int, ...]
    placements: Sequence[Placement]


LAYOUTS = {
    "rows": Layout((2,), [Shard(0)]),
    "columns": Layout((2,), [Shard(1)]),
    "replicas": Layout((2,), [Replicate()]),
    "rows and columns": Layout((2, 2), [Shard(0), Shard(1)]),
    "columns and rows": Layout((2, 2), [Shard(1), Shard(0)]),
    "replicas of rows": Layout((2, 2), [Replicate(), Shard(0)]),
    "columns, replicated": Layout((2, 2), [Shard(1), Replicate()]),
    "rows of rows": Layout((2, 2), [Shard(0), Shard(0)]),
    "strided rows, as under FSDP over tensor parallel": Layout((2, 2), [_StridedShard(0, split_factor=2), Shard(0)]),
}
PAIR, GRID = list(LAYOUTS)[:3], list(LAYOUTS)[3:]
SHAPES = ((37, 29), (3, 101), (1, 5, 4, 3))
"""Some shards have fewer rows than others, or none."""


def recipe_of(recipe: Recipe) -> Recipe:
    return replace(recipe, schedule=None if recipe.schedule is None else SCHEDULE)


RECIPES = {
    **{name: recipe_of(recipe) for name, recipe in METHODS.items() if recipe.redistribution is None},
    "momentum": RigL(0.7, schedule=SCHEDULE, grow=MOMENTUM),
    "SET as published": SETAsPublished(0.7, schedule=SCHEDULE),
    "gradual pruning": GradualPruning(0.8, schedule=SCHEDULE),
    "the largest weights": RigL(0.7, schedule=SCHEDULE, initial=MAGNITUDE),
    "given scores": Static(0.7, initial=SCORES),
    "static": Static(0.7),
}


class Bare(nn.Module):
    """Parameters without a use: the tests give their gradients."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for i, shape in enumerate(SHAPES):
            kind = nn.Conv2d if len(shape) == 4 else nn.Linear
            module = (
                kind(shape[1], shape[0], *shape[2:3], bias=False, dtype=dtype)
                if len(shape) == 4
                else kind(shape[1], shape[0], bias=False, dtype=dtype)
            )
            module.weight = nn.Parameter(hard_numbers(shape, dtype, generator))
            self.add_module(f"layer{i}", module)


def hard_numbers(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Normal numbers, of which many are equal, or zeros of both signs."""
    x = torch.randn(tuple(shape), generator=generator)
    which = torch.randint(0, 12, tuple(shape), generator=generator)
    for i, value in enumerate((0.0, -0.0, 1.0, -1.0, 0.5)):
        x[which == i] = value
    return x.to(dtype)


def spread(whole: Tensor, like: Tensor) -> DTensor:
    """A whole tensor as the DTensor ``like`` lies."""
    assert isinstance(like, DTensor)
    own = part_of(whole, like).clone()
    mesh, placements = like.device_mesh, like.placements
    return DTensor.from_local(own, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())


def part_of(whole: Tensor, like: DTensor) -> Tensor:
    """What this process holds of a whole tensor, as PyTorch cuts its indices."""
    return whole.detach().reshape(-1)[_indices(tuple(like.shape), like.device_mesh, like.placements)]


@functools.lru_cache
def _indices(shape: tuple[int, ...], mesh: DeviceMesh, placements: tuple[Placement, ...]) -> Tensor:
    numbers = torch.arange(math.prod(shape)).reshape(shape)
    return distribute_tensor(numbers, mesh, placements, src_data_rank=None).to_local()


def shard_all(model: nn.Module, layout: Layout, mesh: DeviceMesh) -> None:
    for module in list(model.modules()):
        for name, param in list(module.named_parameters(recurse=False)):
            placed = distribute_tensor(param.detach(), mesh, list(layout.placements), src_data_rank=None)
            setattr(module, name, nn.Parameter(placed))


def same_part(whole: Tensor, shards: Tensor) -> bool:
    """Whether this process's shard has the bits of the whole tensor."""
    assert isinstance(shards, DTensor)
    return same_bits(part_of(whole, shards), shards.detach().to_local())


def as_one_process(mesh: DeviceMesh, layout: str, method: str, dtype: torch.dtype, seed: int) -> list[str]:
    """Train the same parameters, whole and in shards, with equal gradients: what differs in the end."""
    recipe = RECIPES[method]
    one, many = Bare(dtype, seed), Bare(dtype, seed)
    shard_all(many, LAYOUTS[layout], mesh)
    generator = torch.Generator().manual_seed(seed + 1)
    scores = {
        f"layer{i}.weight": torch.rand(shape, generator=generator).round(decimals=1) for i, shape in enumerate(SHAPES)
    }
    trainings = []
    for model in (one, many):
        # By powers of two: PyTorch rounds a product with another number in one way or another, as an array lies.
        optimizer = torch.optim.SGD(model.parameters(), 2.0**-6, momentum=0.5, foreach=False)
        given = scores if recipe.initial is SCORES else None
        trainings.append((model, optimizer, sparsify(model, optimizer, recipe, scores=given)))
    differ = differences(trainings, "at the start")
    for step in range(STEPS):
        for (name, param), shards in zip(one.named_parameters(), many.parameters(), strict=True):
            gradient = hard_numbers(param.shape, dtype, generator)
            if step == 1:
                gradient[0, 0] = float("nan")  # in one shard only: the update waits in all
            unused = step == 3 and name == "layer1.weight"
            param.grad, shards.grad = (None, None) if unused else (gradient, spread(gradient, shards))
        for _, optimizer, _ in trainings:
            optimizer.step()
        differ += differences(trainings, f"after step {step}") if step % 2 else []
    return differ


def differences(trainings: Sequence[tuple[nn.Module, Optimizer, SparseTraining]], when: str) -> list[str]:
    """Which masks, weights and optimizer state of two trainings, one of them in shards, have other bits."""
    (one, optimizer, sparse), (many, sharded_optimizer, sharded) = trainings
    differ = [
        f"masks of {name} {when}" for name, mask in sparse.masks.items() if not same_part(mask, sharded.masks[name])
    ]
    for (name, param), shards in zip(one.named_parameters(), many.parameters(), strict=True):
        differ += [f"weights of {name} {when}"] * (not same_part(param, shards))
        state, other = optimizer.state.get(param, {}), sharded_optimizer.state.get(shards, {})
        for key, value in state.items():
            if isinstance(other.get(key), DTensor):
                differ += [f"{key} of {name} {when}"] * (not same_part(value, other[key]))
    if sparse.table != sharded.table:
        differ.append(f"tables {when}")
    return differ


def cases(pair: bool) -> Iterator[tuple[str, str, torch.dtype]]:
    """Every method in some layout over two processes, or every layout over four; in all precisions."""
    dtypes = itertools.cycle((torch.float32, torch.bfloat16, torch.float64, torch.float16))
    if pair:
        for number, method in enumerate(RECIPES):
            yield PAIR[number % 2], method, next(dtypes)
        yield "replicas", "RigL", next(dtypes)
    else:
        for layout, method in zip(GRID, itertools.cycle(("RigL", "Deep R", "SET as published")), strict=False):
            yield layout, method, next(dtypes)


def every_case(mesh: DeviceMesh) -> dict[str, list[str]]:
    """What differs from one process, by case."""
    return {
        f"{method}, {layout}, {dtype}": as_one_process(mesh, layout, method, dtype, seed)
        for seed, (layout, method, dtype) in enumerate(cases(pair=mesh.size() == 2))
    }
