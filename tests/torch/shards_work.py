"""Four processes on the CPU that hold layers in shards; each writes what it finds to a file."""

from __future__ import annotations

import copy
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

from rigl_core import DNW, Recipe
from tests.torch.helpers import batch, loss_of, mlp
from tests.torch.shards import WORLD, differences, every_case
from tests.torch.shards_models import (
    RIGL,
    SCHEDULE,
    Training,
    by_fsdp,
    by_tensor_parallel,
    columns_where_even,
    error_of,
    given_step,
    started,
)
from tests.torch.shards_trials import (
    by_zero,
    refusals,
    replicas,
    replicas_that_come_apart,
    sharded_afterwards,
    what_is_sent,
    with_another_sparsity,
    written_by_one,
)


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
