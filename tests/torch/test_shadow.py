"""Weights that learn outside the mask, with every optimizer of torch.optim."""

from __future__ import annotations

import copy

import pytest
import torch

from rigl_backends.torch import sparsify
from rigl_core.testing.checks import checks
from tests.torch.helpers import METHODS, SCHEDULE, batch, loss_of, mlp, same_bits, snapshot, train_step
from tests.torch.test_optimizers import CASES, make


@checks("M6", "Z1")
@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_with_every_optimizer_weights_outside_the_mask_go_on_learning(name: str, implementation: str) -> None:
    """The reference is a dense training by hand; its forward pass sees only the weights inside the mask."""
    model, optimizer = make(name, implementation)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    sparse = sparsify(model, optimizer, METHODS["DNW"])
    first = sparse.masks
    for step in range(10):
        masks = sparse.masks
        train_step(model, optimizer, batch(step))
        whole = {name: param.detach().clone() for name, param in twin.named_parameters()}
        with torch.no_grad():
            for name, mask in masks.items():
                twin.get_parameter(name)[~mask] = 0
        twin_optimizer.zero_grad()
        loss_of(twin, batch(step)).backward()
        twin.load_state_dict(whole)
        twin_optimizer.step()
        (weights, state), (all_weights, all_state) = snapshot(model, optimizer), snapshot(twin, twin_optimizer)
        for name, mask in sparse.masks.items():
            all_weights[name] = torch.where(mask, all_weights[name], 0)
            if SCHEDULE.fires(step):
                largest = twin.get_parameter(name).detach().abs().reshape(-1).argsort(descending=True, stable=True)
                chosen = torch.zeros(mask.numel(), dtype=torch.bool)
                chosen[largest[: int(mask.sum())]] = True
                assert torch.equal(mask.reshape(-1), chosen)
        assert same_bits(weights, all_weights)
        assert same_bits(state, all_state)
    assert not same_bits(sparse.masks, first)


@checks("M6", "V3")
def test_a_step_without_any_gradient_forgets_nothing() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparse = sparsify(model, optimizer, METHODS["DNW"])
    for step in range(2):
        train_step(model, optimizer, batch(step))
    optimizer.zero_grad()
    optimizer.step()  # the first update
    assert sparse.step == 3
    for name, shadow in sparse.state_dict()["memory"]["shadow"].items():
        inside = sparse.masks[name].reshape(-1)
        assert shadow[~inside].all()
        assert not shadow[inside].any()
