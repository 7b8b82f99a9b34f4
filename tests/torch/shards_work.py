"""Four processes on the CPU that hold layers in shards; each writes what it finds to a file."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Partial, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import DNW, MAGNITUDE, MOMENTUM, NM, SNFS, Recipe, RigL, UpdateSchedule
from tests.torch.helpers import batch, hooks_of, loss_of, mlp
from tests.torch.shards import WORLD, differences, every_case, hard_numbers, same_part, spread

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


def given_step(training: Training, step: int) -> None:
    """A step with gradients that depend on nothing but the step and the parameter."""
    model, optimizer, _ = training
    for number, param in enumerate(model.parameters()):
        gradient = hard_numbers(param.shape, torch.float32, torch.Generator().manual_seed(100 * step + number))
        param.grad = spread(gradient, param) if hasattr(param, "full_tensor") else gradient
    optimizer.step()


def own_steps(training: Training, rank: int, steps: int = 6) -> list[str]:
    """Train by the model's own gradients: what breaks the contract."""
    model, optimizer, sparse = training
    active = sparse.table.total_active
    found = []
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, batch(step, rank)).backward()
        for name, mask in sparse.masks.items():
            param: Any = model.get_parameter(name)
            outside = ~mask.to_local()
            if not SCHEDULE.fires(step) and bool(param.grad.to_local()[outside].any()):
                found.append(f"gradient of {name} outside at step {step}")
        optimizer.step()
        for name, mask in sparse.masks.items():
            param, outside = model.get_parameter(name), ~mask.to_local()
            held = [param, *(x for x in optimizer.state[param].values() if hasattr(x, "to_local"))]
            if any(bool(x.to_local()[outside].any()) for x in held):
                found.append(f"{name} outside at step {step}")
        if sparse.table.total_active != active:
            found.append(f"{sparse.table.total_active} active weights, not {active}")
    moved = [name for name, mask in sparse.masks.items() if not mask.to_local().all()]
    return found + ([] if sparse.step == steps and moved else ["no step was made"])


def as_one(model: nn.Module, rank: int, recipe: Recipe = RIGL) -> list[str]:
    """What differs between this model and one that is whole, given equal gradients; then own gradients."""
    many, one = started(model, recipe), started(mlp(), recipe)
    found = differences([one, many], "at the start")
    for step in range(6):
        given_step(one, step)
        given_step(many, step)
    found += differences([one, many], "in the end")
    for hook in (one, many):
        hook[2].remove()
    return found


def columns_where_even(param: nn.Parameter) -> Shard:
    return Shard(1 if param.ndim == 2 else 0)


def checkpoints(pair: DeviceMesh, grid: DeviceMesh, rank: int, folder: str, recipe: Recipe) -> dict[str, list[str]]:
    """Save in two processes, go on in two, in four, and in one: what differs from a training that was never saved."""
    path, found = f"{folder}/{recipe.method}", dict[str, list[str]]()
    one = started(mlp(), recipe)
    for step in range(5):
        given_step(one, step)
    whole = copy.deepcopy(one)
    for step in range(5, 11):
        given_step(whole, step)
    if rank < 2:
        many = started(by_fsdp(pair), recipe)
        for step in range(5):
            given_step(many, step)
        many[1].zero_grad()
        model, optimizer = get_state_dict(many[0], many[1])
        dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=path, process_group=pair.get_group())
        found["saved"] = finish(many, whole)
        resumed = started(by_fsdp(pair, seed=1), recipe)
        load(resumed, path, process_group=pair.get_group())
        found["in two"] = finish(resumed, whole)
    dist.barrier()
    flat = DeviceMesh("cpu", torch.arange(WORLD))
    resumed = started(by_fsdp(flat, seed=2), recipe)
    load(resumed, path)
    found["in four"] = finish(resumed, whole)
    if rank == 0:
        resumed = started(mlp(seed=3), recipe)
        load(resumed, path, no_dist=True)
        for step in range(5, 11):
            given_step(resumed, step)
        same = all(torch.equal(mask, whole[2].masks[name]) for name, mask in resumed[2].masks.items())
        found["in one"] = [] if same and resumed[2].step == 11 else [f"step {resumed[2].step}, masks equal: {same}"]
    return found


def load(training: Training, path: str, **how: Any) -> None:
    model, optimizer = get_state_dict(training[0], training[1])
    state = {"model": model, "optimizer": optimizer}
    dcp.load(state, checkpoint_id=path, **how)
    set_state_dict(training[0], training[1], model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def finish(many: Training, whole: Training) -> list[str]:
    for step in range(5, 11):
        given_step(many, step)
    return differences([whole, many], "in the end")


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


def error_of(act: Callable[[], Any]) -> str:
    try:
        act()
    except (TypeError, ValueError) as error:
        return str(error)
    return "no error"


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


def in_pair(pair: DeviceMesh, rank: int) -> dict[str, Any]:
    return {
        "FSDP": as_one(by_fsdp(pair), rank),
        "FSDP, columns": as_one(by_fsdp(pair, place=columns_where_even), rank),
        "FSDP, own gradients": own_steps(started(by_fsdp(pair)), rank),
        "TP": as_one(by_tensor_parallel(pair), rank),
        "TP, own gradients": own_steps(started(by_tensor_parallel(pair)), 0),
        "ZeRO": by_zero(pair, rank),
        "sharded afterwards": sharded_afterwards(pair),
        "refusals": refusals(pair),
        "written by one": written_by_one(pair, rank),
        "replicas": replicas(pair, rank),
        "sent": what_is_sent(pair),
        "another sparsity": with_another_sparsity(pair),
    }


def in_grid(grid: DeviceMesh, rank: int) -> dict[str, Any]:
    def two_ways() -> nn.Module:
        model = by_tensor_parallel(grid["tp"])
        return fully_shard(model, mesh=grid["dp"])

    return {
        "FSDP of TP": as_one(two_ways(), rank),
        "FSDP of TP, own gradients": own_steps(started(two_ways()), rank // 2),
        "replicas of shards": as_one(by_fsdp(grid), rank),
        "replicas that come apart": error_of(lambda: replicas_that_come_apart(grid, rank)),
    }


def work(rank: int, folder: str) -> None:
    """Run every check in one process, and write what it finds to a file."""
    torch.set_num_threads(1)
    meeting, patience = f"file://{folder}/meeting", timedelta(minutes=2)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=patience)
    two, grid = DeviceMesh("cpu", [0, 1]), init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    pair = two if rank < 2 else None
    records: dict[str, Any] = {}
    for name, check in {
        "every method": lambda: {} if pair is None else every_case(pair),
        "every layout": lambda: every_case(grid),
        "pair": lambda: {} if pair is None else in_pair(pair, rank),
        "grid": lambda: in_grid(grid, rank),
        "checkpoints": lambda: checkpoints(two, grid, rank, folder, RIGL),
        "checkpoints with memory": lambda: checkpoints(two, grid, rank, folder, DNW(0.7, schedule=SCHEDULE)),
    }.items():
        records[name] = check()
        dist.barrier()
    torch.save(records, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
