"""Two replicas on the CPU, each in a process of its own; each records what it sees at every step."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from rigl_backends.torch import sparsify
from rigl_core import Recipe
from tests.torch.helpers import METHODS, batch, dense_gradients, loss_of, rigl

WORLD = 2
STEPS = 13
"""They include the updates 0, 1 and 2, at steps 2, 7 and 12."""


class Network(nn.Module):
    """A network. With ``partly_used`` it has a layer that only replica 1 uses, and a layer that no replica uses."""

    def __init__(self, rank: int, *, partly_used: bool) -> None:
        super().__init__()
        self.rank, self.partly_used = rank, partly_used
        self.first, self.last = nn.Linear(12, 16), nn.Linear(16, 6)
        if partly_used:
            self.sometimes, self.never = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        if self.partly_used and self.rank == 1:
            hidden = hidden + self.sometimes(hidden)
        out: Tensor = self.last(hidden)
        return out


class Scenario(NamedTuple):
    recipe: Recipe = rigl(0.8)
    wrapper: dict[str, Any] = {}  # noqa: RUF012  (arguments for DistributedDataParallel)
    wrap_first: bool = False
    micro_batches: int = 1
    partly_used: bool = False
    nan_on_replica_0_at: int | None = None
    power_sgd: bool = False


SCENARIOS = {
    "plain": Scenario(),
    "wrapped first": Scenario(wrap_first=True),
    "gradients as views": Scenario(wrapper={"gradient_as_bucket_view": True}),
    "static graph": Scenario(wrapper={"static_graph": True, "gradient_as_bucket_view": True}),
    "many buckets": Scenario(wrapper={"bucket_cap_mb": 0.0005}),
    "accumulation": Scenario(micro_batches=3),
    "accumulation in views": Scenario(wrapper={"gradient_as_bucket_view": True}, micro_batches=3),
    "unused layers": Scenario(wrapper={"find_unused_parameters": True}, partly_used=True),
    "a NaN on one replica": Scenario(nan_on_replica_0_at=7),
    "compressed": Scenario(power_sgd=True),
}


METHOD_SCENARIOS = {
    method: Scenario(METHODS[method], {"gradient_as_bucket_view": True}, micro_batches=2)
    for method in ("SNFS", "Deep R", "DNW", "DNS")
}
ALL_SCENARIOS = {**SCENARIOS, **METHOD_SCENARIOS}


def work(rank: int, folder: str) -> None:
    """Run every scenario in one process, and write its record to a file."""
    torch.set_num_threads(1)
    meeting, patience = f"file://{folder}/meeting", timedelta(minutes=2)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=patience)
    records: dict[str, Any] = {name: train(rank, scenario) for name, scenario in ALL_SCENARIOS.items()}
    torch.save(records, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def train(rank: int, scenario: Scenario) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = Network(rank, partly_used=scenario.partly_used)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, fused=True)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    wrap: Callable[[], nn.Module] = lambda: DistributedDataParallel(model, **scenario.wrapper)  # noqa: E731
    if scenario.wrap_first:
        replica = wrap()
        sparse = sparsify(model, optimizer, scenario.recipe)
    else:
        sparse = sparsify(model, optimizer, scenario.recipe)
        replica = wrap()
    if scenario.power_sgd:
        state = powerSGD_hook.PowerSGDState(None, start_powerSGD_iter=2, min_compression_rate=0.5)
        assert isinstance(replica, DistributedDataParallel)
        replica.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    records = []
    for step in range(STEPS):
        parts = [batch(step, WORLD * part + rank) for part in range(scenario.micro_batches)]
        if rank == 0 and step == scenario.nan_on_replica_0_at:
            parts[0] = (parts[0][0] * float("nan"), parts[0][1])

        def backward(model: nn.Module, parts: list[Any] = parts) -> None:
            for i, part in enumerate(parts):
                last = i == len(parts) - 1 or not isinstance(model, DistributedDataParallel)
                with contextlib.nullcontext() if last else model.no_sync():
                    loss = loss_of(model, part) / len(parts)
                    (scaler.scale(loss) if isinstance(model, DistributedDataParallel) else loss).backward()

        record: dict[str, Any] = {"masks": sparse.masks, "weights": weights_of(model)}
        record["own gradient"] = dense_gradients(model, backward)
        optimizer.zero_grad()
        backward(replica)
        scaler.unscale_(optimizer)
        record["gradient"] = copy.deepcopy({name: param.grad for name, param in model.named_parameters()})
        record["norm"] = nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        record["new masks"], record["new weights"] = sparse.masks, weights_of(model)
        state = sparse.state_dict()
        record["deferred"], record["memory"] = state["deferred"], state["memory"]
        records.append(record)
    return records


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: param.detach().clone() for name, param in model.named_parameters()}
