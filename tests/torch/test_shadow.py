"""Weights outside the mask that go on learning, with every optimizer of torch.optim."""

from __future__ import annotations

import copy

import pytest
import torch

from rigl_backends.torch import sparsify
from rigl_core.testing.checks import checks
from tests.torch.helpers import METHODS, SCHEDULE, batch, loss_of, same_bits, snapshot, train_step
from tests.torch.test_optimizers import CASES, make


@checks("M6", "Z1")
@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_with_every_optimizer_weights_outside_the_mask_go_on_learning(name: str, implementation: str) -> None:
    """Beside a dense training whose forward pass, written by hand, sees what is in the mask alone."""
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
