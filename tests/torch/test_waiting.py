"""No step waits for the device, except an update that reads gradients, which must know whether they are finite.

PyTorch's meta device stands for a GPU: whatever must know a number there, or copies it to the host, fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rigl_backends.torch import sparsify
from rigl_backends.torch.small_training import make_data
from rigl_core import DSR, MAGNITUDE, NM, GradualPruning, Recipe, RigL, SETAsPublished, SRigL
from rigl_core.testing.checks import checks
from tests.torch.helpers import METHODS, SCHEDULE, loss_of, mlp

RECIPES: dict[str, Recipe] = {
    **METHODS,
    "global": RigL(0.7, schedule=SCHEDULE, scope="global", initial=MAGNITUDE),
    "DSR": DSR(0.7, schedule=SCHEDULE),
    "SET as published": SETAsPublished(0.7, schedule=SCHEDULE),
    "2:4": RigL(schedule=SCHEDULE, structure=NM(2, 4)),
    "SRigL": SRigL(0.7, schedule=SCHEDULE),
    "ramp": GradualPruning(0.7, schedule=SCHEDULE),
}


class Fused(torch.optim.Optimizer):
    """Reads itself what a gradient scaler has found, as fused optimizers do."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.found_inf = torch.empty((), device="meta")

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    param.detach().sub_(group["lr"] * param.grad)


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "Adam": torch.optim.Adam,
    "Muon": torch.optim.Muon,
    "under a gradient scaler": Fused,
}


class Answers(TorchDispatchMode):
    """Answers "yes" where the host asks the device for a bool, and counts how often it does."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta and args[0].dtype == torch.bool:
            self.count += 1
            return True
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def meta_stands_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights there are as good as others; a probe of the optimizer, once in a training, takes numbers of the host."""
    monkeypatch.setattr("rigl_backends.torch.layers._check", lambda *args, **kwargs: None)
    host = torch.empty(0)
    monkeypatch.setattr("rigl_backends.torch.probe.make_data", lambda shape, like: make_data(shape, host))


def train_step(model: nn.Module, optimizer: Any) -> None:
    batch = torch.empty(8, 12, device="meta"), torch.empty(8, dtype=torch.int64, device="meta")
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=False)
    optimizer.step()


def waits_of_each_step(recipe: Recipe, make: Callable[..., Any]) -> list[int]:
    model, waits = mlp(bias=make is not torch.optim.Muon).to("meta"), []
    optimizer = make(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, recipe)
    for _ in range(4):
        with Answers() as answers:
            train_step(model, optimizer)
        waits.append(answers.count)
    assert sparse.step == 4
    return waits


@checks("T5")
@pytest.mark.parametrize("name", RECIPES)
def test_steps_wait_for_nothing_and_updates_for_one_answer(name: str) -> None:
    reads = RECIPES[name].rule.reads_gradient
    assert waits_of_each_step(RECIPES[name], torch.optim.SGD) == [0, 0, int(reads), 0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_in_any_optimizer(optimizer: str) -> None:
    assert waits_of_each_step(METHODS["RigL"], OPTIMIZERS[optimizer]) == [0, 0, 1, 0]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: torch.zeros(3).copy_(x),
    ],
)
def test_what_waits_would_be_noticed(read: Callable[[Tensor], Any]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)), Answers():
        read(torch.empty(3, device="meta"))
    with Answers() as answers:
        assert bool((torch.empty(3, device="meta") > 0).all())
    assert answers.count == 1
