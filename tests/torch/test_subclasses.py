"""The user's own optimizers that call their parent's step(), so that PyTorch's hooks run twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rigl_backends.torch import sparsify
from rigl_core import Constant, RigL, UpdateSchedule

RECIPE = RigL(0.5, schedule=UpdateSchedule(end=7, every=3), drop_fraction=Constant(0.5))


class Centered(torch.optim.SGD):
    """SGD with gradient centralization. It is not element-wise: it gives inactive weights a gradient."""

    failing = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        if self.failing:
            raise RuntimeError("the optimizer fails")
        for param in self.param_groups[0]["params"]:
            if param.grad is not None:
                param.grad.sub_(param.grad.mean())
        return super().step(closure)


def make() -> tuple[nn.Module, Centered, Any]:
    torch.manual_seed(0)
    torch.optim.SGD([nn.Parameter(torch.ones(1))])  # from now on SGD.step runs hooks, whoever calls it
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    optimizer = Centered(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, sparsify(model, optimizer, RECIPE)


@pytest.mark.parametrize("with_closure", [False, True])
def test_a_step_is_counted_once_and_weights_stay_outside(with_closure: bool) -> None:
    model, optimizer, sparse = make()
    bias = model[1].bias

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.randn(5, 8)).square().sum()
        loss.backward()
        return loss

    for number in range(9):
        before, masks = bias.detach().clone(), sparse.masks
        if with_closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        assert sparse.step == number + 1
        updates = number in (0, 3, 6)
        assert torch.equal(bias, before) == updates
        assert any(not torch.equal(mask, masks[name]) for name, mask in sparse.masks.items()) == updates
        for name, mask in sparse.masks.items():
            assert not model.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("with_closure", [False, True])
def test_a_step_that_fails_is_not_counted(with_closure: bool) -> None:
    model, optimizer, sparse = make()

    def fail() -> torch.Tensor:
        raise RuntimeError("the closure fails")

    for _ in range(2):
        optimizer.failing = not with_closure
        with pytest.raises(RuntimeError, match="fails"):
            optimizer.step(fail if with_closure else None)
    optimizer.failing = False
    for number in range(4):
        optimizer.zero_grad()
        model(torch.randn(5, 8)).square().sum().backward()
        optimizer.step()
        assert sparse.step == number + 1


def test_a_closure_that_failed_can_be_called_again_at_once() -> None:
    """There is no backward pass in between. The second step must not look nested in the failed one."""
    model, optimizer, sparse = make()
    failing = True

    def closure() -> torch.Tensor:
        if failing:
            raise RuntimeError("the closure fails")
        optimizer.zero_grad()
        loss = model(torch.randn(5, 8)).square().sum()
        loss.backward()
        return loss

    for number in range(7):
        masks, failing = sparse.masks, True
        with pytest.raises(RuntimeError, match="fails"):
            optimizer.step(closure)
        failing = False
        optimizer.step(closure)
        assert sparse.step == number + 1
        moved = any(not torch.equal(mask, masks[name]) for name, mask in sparse.masks.items())
        assert moved == (number in (0, 3, 6))
        for name, mask in sparse.masks.items():
            assert not model.get_parameter(name)[~mask].any()
