"""The gradients that the user's loop sees between backward() and step(), and the gradient that an update reads."""

from __future__ import annotations

import copy
import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from rigl_backends.torch import sparsify
from rigl_core import SET, SNIP
from rigl_core.testing.checks import checks
from tests.torch.helpers import (
    METHODS,
    SCHEDULE,
    HostSyncs,
    batch,
    dense_gradients,
    expected_mask,
    loss_of,
    mlp,
    rigl,
    same_bits,
    snapshot,
    train_step,
)


def norm_of(gradients: dict[str, Tensor | None], masks: dict[str, Tensor]) -> float:
    masked = [
        grad if name not in masks else torch.where(masks[name], grad, 0)
        for name, grad in gradients.items()
        if grad is not None
    ]
    return math.sqrt(sum(float(grad.double().pow(2).sum()) for grad in masked))


@checks("G1")
def test_clipping_sees_the_sparse_gradient_but_at_updates() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparse = sparsify(model, optimizer, rigl(0.9))
    for step in range(30):
        masks, updating = sparse.masks, SCHEDULE.fires(sparse.step)
        dense = dense_gradients(model, lambda twin, step=step: loss_of(twin, batch(step)).backward())
        optimizer.zero_grad()
        loss_of(model, batch(step)).backward()
        for name, mask in masks.items():
            grad, dense_grad = model.get_parameter(name).grad, dense[name]
            assert grad is not None
            assert dense_grad is not None
            assert same_bits(grad, dense_grad if updating else torch.where(mask, dense_grad, 0))
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        assert norm.item() == pytest.approx(norm_of(dense, {} if updating else masks), rel=1e-5)
        if not updating:
            assert norm.item() < 0.99 * norm_of(dense, {})
        seen = [param.grad for param in model.parameters()]
        optimizer.step()
        assert all(param.grad is grad for param, grad in zip(model.parameters(), seen, strict=True))


@checks("G1")
def test_methods_that_grow_at_random_never_show_the_dense_gradient() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, SET(0.9, schedule=SCHEDULE))
    for step in range(10):
        optimizer.zero_grad()
        loss_of(model, batch(step)).backward()
        for name, mask in sparse.masks.items():
            grad = model.get_parameter(name).grad
            assert grad is not None
            assert not grad[~mask].any()
        optimizer.step()


@checks("G2")
@pytest.mark.parametrize("set_to_none", [True, False])
def test_updates_read_the_gradient_accumulated_over_micro_batches(set_to_none: bool) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    sparse = sparsify(model, optimizer, rigl())
    update = 0
    for step in range(13):

        def backward(model: nn.Module, step: int = step) -> None:
            for part in range(4):
                (loss_of(model, batch(step, part)) / 4).backward()

        weights, old, updating = snapshot(model, optimizer)[0], sparse.masks, SCHEDULE.fires(sparse.step)
        dense = dense_gradients(model, backward)
        optimizer.zero_grad(set_to_none=set_to_none)
        backward(model)
        for name, mask in old.items():
            grad, dense_grad = model.get_parameter(name).grad, dense[name]
            assert grad is not None
            assert dense_grad is not None
            assert torch.equal(grad, dense_grad if updating else torch.where(mask, dense_grad, 0))
        optimizer.step()
        if updating:
            for position, (name, new) in enumerate(sparse.masks.items()):
                dense_grad = dense[name]
                assert dense_grad is not None
                drop_count = int(sparse.plan.drop_counts[update, position])
                assert drop_count > 0
                assert torch.equal(new, expected_mask(weights[name], dense_grad, old[name], drop_count))
            update += 1
    assert update == 3


@checks("G1")
def test_gradients_set_by_hand_are_masked_before_the_step() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparse = sparsify(model, optimizer, rigl())
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    for name, mask in sparse.masks.items():
        param = model.get_parameter(name)
        assert torch.equal(optimizer.state[param]["momentum_buffer"] != 0, mask)
        assert torch.equal(param != 0, mask)


def test_learning_rate_schedulers_count_updates_as_steps() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    sparsify(model, optimizer, rigl())
    after = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=10)
    for step in range(10):
        train_step(model, optimizer, batch(step))
        before.step()
        after.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**10 * 0.5)


class Branches(nn.Module):
    """A network with a layer that is not used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.used, self.unused = nn.Linear(12, 6), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


@checks("T6")
def test_an_unused_layer_keeps_its_topology() -> None:
    model = Branches()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparse = sparsify(model, optimizer, rigl())
    first, weights = sparse.masks, snapshot(model, optimizer)[0]
    for step in range(8):
        train_step(model, optimizer, batch(step))
    assert same_bits(sparse.masks["unused.weight"], first["unused.weight"])
    assert same_bits(model.unused.weight, nn.Parameter(weights["unused.weight"]))
    assert not same_bits(sparse.masks["used.weight"], first["used.weight"])


@checks("T6", "M3")
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_an_unused_layer_keeps_its_topology_where_layers_choose_together(scope: Literal["layer", "global"]) -> None:
    model = Branches()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, SNIP(0.5, scope=scope))
    train_step(model, optimizer, batch(0))
    left = {name: int(mask.sum()) for name, mask in sparse.masks.items()}
    assert left == {"used.weight": 36, "unused.weight": 72}  # the used layer drops its share, also of a common count


@pytest.mark.parametrize("method", ["SNFS", "DNW"])
def test_what_is_remembered_of_an_unused_layer_stays(method: str) -> None:
    model = Branches()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparse = sparsify(model, optimizer, METHODS[method])
    memory = {kind: arrays["unused.weight"] for kind, arrays in sparse.state_dict()["memory"].items()}
    for step in range(2):
        train_step(model, optimizer, batch(step))
    after = {kind: arrays["unused.weight"] for kind, arrays in sparse.state_dict()["memory"].items()}
    assert same_bits(after, memory)
    assert model.unused.weight not in optimizer.state


def test_a_graph_of_the_gradient_can_be_built() -> None:
    """Gradient penalties need backward(create_graph=True)."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(8):
        optimizer.zero_grad()
        x, labels = batch(step)
        x.requires_grad_()
        loss = loss_of(model, (x, labels))
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        (loss + slope.pow(2).sum()).backward()
        optimizer.step()
    assert sparse.step == 8
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in sparse.masks.items())


@pytest.mark.parametrize("method", METHODS)
def test_ordinary_steps_never_wait_for_the_device(method: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparse = sparsify(model, optimizer, METHODS[method])
    for step in range(8):
        updating = SCHEDULE.fires(sparse.step)
        with HostSyncs() as syncs:
            train_step(model, optimizer, batch(step))
        assert updating or not syncs.found
    with HostSyncs() as syncs:
        torch.ones(()).item()
    assert syncs.found  # it would have been noticed


def test_sparsify_and_updates_leave_the_users_random_numbers_alone() -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    state = torch.get_rng_state()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsify(model, optimizer, rigl())
    for step in range(8):
        train_step(model, optimizer, batch(step))
    assert torch.equal(torch.get_rng_state(), state)
    other = sparsify(twin, torch.optim.SGD(twin.parameters(), 0.1), rigl(seed=1))
    assert not same_bits(other.masks["0.weight"], model[0].weight != 0)
