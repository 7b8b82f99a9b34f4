"""Optimizers may evaluate their closure as often as they like: one update a step, in place of all that they do (R1)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core.testing.checks import checks
from tests.torch.helpers import METHODS, SCHEDULE, batch, loss_of, mlp, rigl, same_bits, snapshot

Closure = Callable[[], Any]


class Twice(torch.optim.SGD):
    """It evaluates its closure twice, and uses the second gradient. It counts its steps."""

    @torch.no_grad()
    def step(self, closure: Closure) -> Any:
        with torch.enable_grad():
            closure()
            loss = closure()
        self.param_groups[0]["count"] = self.param_groups[0].get("count", 0) + 1
        super().step()
        return loss


class Sam(Optimizer):
    """Foret et al. 2021, with the first gradient by a closure, too, or by the user's own ``backward()``."""

    def __init__(self, params: Any, *, evaluations: int, inner: bool) -> None:
        super().__init__(params, {"lr": 0.1})
        self.evaluations = evaluations
        self.base = torch.optim.SGD(self.param_groups, 0.1, momentum=0.9) if inner else None

    @torch.no_grad()
    def step(self, closure: Closure) -> Any:
        evaluate = torch.enable_grad()(closure)
        if self.evaluations == 2:
            evaluate()
        params = [param for param in self.param_groups[0]["params"] if param.grad is not None]
        norm = torch.stack([param.grad.norm() for param in params]).norm()
        for param in params:
            self.state[param]["old"] = param.detach().clone()
            param.add_(param.grad, alpha=0.05 / float(norm))
            param.grad.zero_()
        loss = evaluate()
        for param in params:
            param.copy_(self.state[param]["old"])
        self.descend(params)
        return loss

    def descend(self, params: list[Tensor]) -> None:
        if self.base is not None:
            self.base.step()
            return
        for param in params:
            velocity = self.state[param].setdefault("velocity", torch.zeros_like(param))
            velocity.mul_(0.9).add_(param.grad)
            param.sub_(velocity, alpha=0.1)


OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "twice": lambda params: Twice(params, 0.1, momentum=0.9),
    "sam": lambda params: Sam(params, evaluations=1, inner=False),
    "sam around sgd": lambda params: Sam(params, evaluations=1, inner=True),
    "sam, two closures": lambda params: Sam(params, evaluations=2, inner=False),
    "sam around sgd, two closures": lambda params: Sam(params, evaluations=2, inner=True),
}


def closure_of(model: nn.Module, optimizer: Optimizer, step: int) -> Closure:
    """A closure whose batches differ from evaluation to evaluation."""
    parts = iter(range(9))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch(step, next(parts)))
        loss.backward()
        return loss

    return closure


def states(optimizer: Optimizer) -> Any:
    inner = [vars(optimizer).get("base")] if vars(optimizer).get("base") else []
    found = [copy.deepcopy(list(one.state.values())) for one in (optimizer, *inner)]
    return found, [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def make(kind: str, method: str = "RigL") -> tuple[nn.Sequential, Optimizer, SparseTraining]:
    torch.optim.SGD([nn.Parameter(torch.ones(1))])  # from now on SGD.step runs hooks, whoever calls it
    model = mlp()
    optimizer = OPTIMIZERS[kind](model.parameters())
    return model, optimizer, sparsify(model, optimizer, METHODS[method])


def take_step(kind: str, model: nn.Module, optimizer: Optimizer, step: int) -> None:
    closure = closure_of(model, optimizer, step)
    if "sam" in kind and "two" not in kind:
        closure()
    optimizer.step(closure)


@checks("R1", "V3", "V4", "Z1")
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_one_update_in_place_of_the_whole_step(kind: str) -> None:
    model, optimizer, sparse = make(kind)
    for step in range(9):
        weights, old = snapshot(model, optimizer)[0], sparse.masks
        before = states(optimizer)
        take_step(kind, model, optimizer, step)
        assert sparse.step == step + 1
        new, after = sparse.masks, snapshot(model, optimizer)[0]
        changed = {name for name, mask in new.items() if not same_bits(mask, old[name])}
        assert bool(changed) == SCHEDULE.fires(step)
        for name, mask in new.items():
            assert not after[name][~mask].any()
            if SCHEDULE.fires(step):
                kept = old[name] & mask
                assert same_bits(after[name][kept], weights[name][kept])
                assert not after[name][~kept].any()
        assert same_bits(after["0.bias"], weights["0.bias"]) == SCHEDULE.fires(step)
        if SCHEDULE.fires(step):
            assert same_bits(states(optimizer)[1], before[1])
            assert len(states(optimizer)[0][0]) == len(before[0][0])


@checks("G2", "R1")
@pytest.mark.parametrize("kind", ["twice", "sam around sgd"])
def test_an_update_reads_the_last_gradient(kind: str) -> None:
    """It is the one that the optimizer would use; what it was evaluated at is the optimizer's choice."""
    model, optimizer, sparse = make(kind)
    for step in range(2):
        take_step(kind, model, optimizer, step)
    seen: list[dict[int, Tensor]] = []
    move = sparse.move

    def record(update: int, gradients: Any) -> None:
        seen.append({i: gradient.clone() for i, gradient in gradients.items()})
        move(update, gradients)

    sparse.move = record
    last: list[Tensor] = []
    closure = closure_of(model, optimizer, 2)

    def recorded() -> Any:
        loss = closure()
        last.append(model[0].weight.grad.clone())
        return loss

    if "sam" in kind:
        closure()
    optimizer.step(recorded)
    assert len(seen) == 1
    assert same_bits(seen[0][0], last[-1].reshape(-1))


@checks("M9")
def test_momentum_sees_one_gradient_a_step() -> None:
    model, optimizer, sparse = make("twice", "SNFS")
    closure = closure_of(model, optimizer, 0)
    gradients: list[Tensor] = []

    def recorded() -> Any:
        loss = closure()
        gradients.append(model[0].weight.grad.clone())
        return loss

    optimizer.step(recorded)
    momentum = sparse.state_dict()["memory"]["momentum"]["0.weight"]
    decay = METHODS["SNFS"].rule.momentum
    assert len(gradients) == 2
    torch.testing.assert_close(momentum, gradients[-1].reshape(-1) * (1 - decay))


@checks("T5", "R1")
def test_a_deferred_update_leaves_the_step_to_the_optimizer() -> None:
    model, optimizer, sparse = make("twice")
    for step in range(2):
        take_step("twice", model, optimizer, step)
    bias = model[0].bias.detach().clone()
    closure = closure_of(model, optimizer, 2)

    def overflow() -> Any:
        loss = closure()
        model[2].weight.grad[0, 0] = float("inf")
        return loss

    optimizer.step(overflow)
    assert sparse.state_dict()["deferred"]
    assert not same_bits(model[0].bias.detach(), bias)


def test_optimizers_of_pytorch_need_no_copies_at_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rigl_backends.torch.training.Rollback", None)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(4):
        optimizer.step(closure_of(model, optimizer, step))
    assert sparse.step == 4
