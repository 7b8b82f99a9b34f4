"""What else can happen to a training in shards, or to replicas."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Partial
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from rigl_backends.torch import sparsify
from rigl_core import GRADIENT_BY_OUTPUT, MAGNITUDE, MOMENTUM, NM, SNFS, RigL
from tests.torch.helpers import batch, hooks_of, loss_of, mlp
from tests.torch.shards import differences, same_part, spread
from tests.torch.shards_models import (
    RIGL,
    SCHEDULE,
    adamw,
    by_fsdp,
    error_of,
    given_step,
    started,
)


def sharded_afterwards(pair: DeviceMesh) -> dict[str, Any]:
    """`fully_shard` after `sparsify`."""
    model, by_momentum = mlp(), RigL(0.7, schedule=SCHEDULE, grow=MOMENTUM)
    old_optimizer = adamw(model)
    first = (model, old_optimizer, sparsify(model, old_optimizer, by_momentum))
    masks = first[2].masks
    for step in range(3):
        given_step(first, step)
    moved = first[2].state_dict()
    old_optimizer.zero_grad()
    for module in (model[0], model[2], model):
        fully_shard(module, mesh=pair)
    optimizer = adamw(model)
    weights = [param.full_tensor().clone() for param in model.parameters()]
    for param in model.parameters():
        param.grad = spread(torch.ones(param.shape), param)
    message, old_message = error_of(optimizer.step), error_of(old_optimizer.step)
    stayed = all(torch.equal(a, b.full_tensor()) for a, b in zip(weights, model.parameters(), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = (model, optimizer, sparsify(model, optimizer, by_momentum))
        same = all(torch.equal(mask.full_tensor(), masks[name]) for name, mask in again[2].masks.items())
        for step in range(2):
            given_step(again, step)
    steps = again[2].step
    again[2].load_state_dict(moved)
    loaded = again[2].state_dict()
    arrays = [(moved["masks"], loaded["masks"]), (moved["memory"]["momentum"], loaded["memory"]["momentum"])]
    pairs = [(whole[name], shards) for whole, own in arrays for name, shards in own.items()]
    return {
        "messages": [message, old_message],
        "stayed": stayed,
        "same topology": same,
        "steps": steps,
        "moved": loaded["step"] == 3 and all(same_part(whole, shards) for whole, shards in pairs),
    }


def refusals(pair: DeviceMesh) -> dict[str, tuple[str, int]]:
    """The errors for what shards cannot have, and the number of hooks that are left."""
    found = {}
    recipes = {
        "structure": (RigL(structure=NM(2, 4), schedule=SCHEDULE), {}),
        "scope": (RigL(0.7, schedule=SCHEDULE, scope="global"), {}),
        "floor": (RigL(0.7, schedule=SCHEDULE, floor=1), {}),
        "grow": (RigL(0.7, schedule=SCHEDULE, grow=GRADIENT_BY_OUTPUT), {}),
        "redistribution": (SNFS(0.7, schedule=SCHEDULE), {}),
        "storage": (RIGL, {"storage": {"*": "active"}}),
    }
    for name, (recipe, options) in recipes.items():
        model = by_fsdp(pair)
        optimizer = adamw(model)
        message = error_of(lambda: sparsify(model, optimizer, recipe, **options))  # noqa: B023
        found[name] = message, hooks_of(model, optimizer)
    model = mlp()
    data = torch.distributed.tensor.DTensor.from_local(model[0].weight.detach(), pair, [Partial()], run_check=False)
    model[0].weight = nn.Parameter(data)
    optimizer = adamw(model)
    found["partial"] = error_of(lambda: sparsify(model, optimizer, RIGL)), hooks_of(model, optimizer)
    return found


def written_by_one(pair: DeviceMesh, rank: int) -> dict[str, Any]:
    """One process writes outside the mask of its shard, and nobody waits for the others."""
    training = started(by_fsdp(pair))
    model, _, sparse = training
    given_step(training, 0)
    shard = sparse.masks["0.weight"].to_local()
    if rank == 0:
        with torch.no_grad():
            model[0].weight.to_local()[~shard] = 1.0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        given_step(training, 1)
    outside = ~sparse.masks["0.weight"].to_local()
    return {"told": [str(warning.message) for warning in told], "zeroed": not model[0].weight.to_local()[outside].any()}


def with_another_sparsity(pair: DeviceMesh) -> list[str]:
    """A topology that goes on under another recipe: what differs from one process."""
    trainings = []
    for model in (mlp(), by_fsdp(pair)):
        before = started(model)
        for step in range(3):
            given_step(before, step)
        state = before[2].state_dict()
        before[2].remove()
        again = (model, before[1], sparsify(model, before[1], RigL(0.8, schedule=SCHEDULE)))
        again[2].load_state_dict(state, changed=["sparsity"])
        for step in range(3, 6):
            given_step(again, step)
        trainings.append(again)
    planned, active = sum(trainings[0][2].plan.active), trainings[1][2].table.total_active
    return differences(trainings, "in the end") + ([] if active == planned else [f"{active} active, not {planned}"])


def what_is_sent(pair: DeviceMesh) -> dict[str, dict[str, int]]:
    """The names of collective operations, and the most bytes that each sends."""
    training = started(by_fsdp(pair))
    _, optimizer, sparse = training
    found = {}
    for name, act in {
        "step": lambda: given_step(training, 0),
        "update": lambda: given_step(training, 1),
        "looks": lambda: (sparse.masks, sparse.state_dict(), optimizer.state_dict()),
        "table": lambda: sparse.table,
    }.items():
        with Sent() as sent:
            act()
        found[name] = sent.bytes
    return found


class Sent(TorchDispatchMode):
    """Remembers collective operations."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "_c10d_functional"):
            tensors = args[0] if isinstance(args[0], list | tuple) else [args[0]]
            sent = sum(x.numel() * x.element_size() for x in tensors if isinstance(x, torch.Tensor))
            self.bytes[func.overloadpacket.__name__] = max(sent, self.bytes.get(func.overloadpacket.__name__, 0))
        return func(*args, **(kwargs or {}))


def replicas(pair: DeviceMesh, rank: int) -> dict[str, str]:
    """What replicas are told whose masks differ, or are equal."""
    found = {}
    for name, seed, wrap_first in (("unlike", rank, False), ("alike", 0, False), ("made alike", rank, True)):
        model = mlp(seed=seed)
        optimizer = adamw(model)
        wrap = lambda: DistributedDataParallel(model, process_group=pair.get_group())  # noqa: E731, B023
        replica = wrap() if wrap_first else None
        sparse = sparsify(model, optimizer, RigL(0.7, schedule=SCHEDULE, initial=MAGNITUDE))
        replica = replica or wrap()
        loss_of(replica, batch(0, rank)).backward()
        found[name], found[f"{name}, again"] = error_of(optimizer.step), error_of(optimizer.step)
        found[f"{name}, step"] = str(sparse.step)
    return found


def replicas_that_come_apart(grid: DeviceMesh, rank: int) -> list[str]:
    """Replicas of shards whose masks differ in one layer, of one shard."""
    training = started(by_fsdp(grid))
    for step in range(6):
        given_step(training, step)
        if step == 1 and rank == 3:
            layer = training[2]._layers[0]
            layer.mask = layer.mask.roll(1)
    return []


def by_zero(pair: DeviceMesh, rank: int) -> list[str]:
    """ZeroRedundancyOptimizer: each process holds the state of some parameters. What differs from one process."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    one, model = started(mlp()), mlp()
    group = pair.get_group()
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, process_group=group, lr=0.01)
    sparse = sparsify(model, optimizer, RIGL)
    found = []
    for step in range(8):
        if step == 5:
            optimizer.consolidate_state_dict(to=0)
            state = [optimizer.state_dict() if rank == 0 else None]
            dist.broadcast_object_list(state, src=0, group=group)
            weights, topology = copy.deepcopy((model.state_dict(), sparse.state_dict()))
            model = mlp(seed=1)
            optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, process_group=group, lr=0.01)
            sparse = sparsify(model, optimizer, RIGL)
            model.load_state_dict(weights)
            optimizer.load_state_dict(state[0])
            found += [] if "holds no topology" in error_of(optimizer.step) else ["a lost topology is not told"]
            sparse.load_state_dict(topology)
        for training in (one, (model, optimizer, sparse)):
            given_step(training, step)
        for (name, mask), other in zip(sparse.masks.items(), one[2].masks.values(), strict=True):
            found += [f"masks of {name} after step {step}"] * (not torch.equal(mask, other))
        for (name, param), other in zip(model.named_parameters(), one[0].parameters(), strict=True):
            found += [f"weights of {name} after step {step}"] * (not torch.equal(param, other))
    overlapping = ZeroRedundancyOptimizer(
        mlp().parameters(), torch.optim.AdamW, process_group=group, overlap_with_ddp=True, lr=0.01
    )
    message = error_of(lambda: sparsify(mlp(), overlapping, RIGL))
    return found + ([] if "steps inside of backward()" in message else [message])
