"""New weights, and all weights outside the masks, have the state that the optimizer gives a new weight."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch import sparsify
from rigl_core import InitialValues, RigL, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.torch import optimizers as own
from tests.torch.helpers import SCHEDULE, batch, mlp, rigl, same_bits, snapshot, train_step


@checks("V1")
@pytest.mark.parametrize("foreach", [False, True])
def test_grown_connections_in_rprop_take_steps_of_the_learning_rate(foreach: bool) -> None:
    model = mlp()
    optimizer = torch.optim.Rprop(model.parameters(), 0.01, foreach=foreach)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(4):  # with an update at step 2
        old = sparse.masks["0.weight"]
        train_step(model, optimizer, batch(step))
        if step == 2:
            grown = sparse.masks["0.weight"] & ~old
    assert grown.any()
    sizes = model[0].weight[grown].abs()
    assert torch.equal(sizes[sizes > 0], torch.full_like(sizes[sizes > 0], 0.01))
    assert sizes.any()


@checks("V1", "V3")
def test_state_that_was_there_before_sparsify_becomes_fresh_outside() -> None:
    model = mlp()
    optimizer = torch.optim.Adagrad(model.parameters(), 0.1, initial_accumulator_value=0.25)
    for step in range(3):
        train_step(model, optimizer, batch(step))
    before = copy.deepcopy(optimizer.state[model[0].weight]["sum"])
    mask = sparsify(model, optimizer, rigl()).masks["0.weight"]
    after = optimizer.state[model[0].weight]["sum"]
    assert torch.equal(after, torch.where(mask, before, 0.25))


@checks("V1", "V3")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_copies_of_weights_in_the_state_follow_the_weights(dtype: torch.dtype) -> None:
    """A dropped weight must not come back from its copy, and a grown one starts as its copy."""
    model = mlp().to(dtype)
    optimizer = own.ScheduleFree(model.parameters())
    sparse = sparsify(model, optimizer, rigl(grown=InitialValues()))
    for step in range(8):
        old = sparse.masks["0.weight"]
        inputs, labels = batch(step)
        train_step(model, optimizer, (inputs.to(dtype), labels))
        new, weight = sparse.masks["0.weight"], model[0].weight
        copies = optimizer.state[weight]["z"]
        assert not copies[~new].any()
        if SCHEDULE.fires(step):
            grown = new & ~old
            assert same_bits(copies[grown], weight[grown])
            assert weight[grown].all()


def everything(optimizer: Optimizer) -> list[dict[str, object]]:
    return [
        {key: copy.copy(value) for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]


@checks("R1")
@pytest.mark.parametrize("begin", [0, 2])
def test_counters_of_an_optimizer_stand_still_at_updates(begin: int) -> None:
    model = mlp()
    optimizer = own.ScheduleFree(model.parameters(), torch.tensor(0.1))  # type: ignore[arg-type]
    lr = optimizer.param_groups[0]["lr"]
    schedule = UpdateSchedule(end=25, every=5, begin=begin)
    sparsify(model, optimizer, RigL(0.7, schedule=schedule))
    for step in range(9):
        groups, calls = copy.deepcopy(everything(optimizer)), optimizer.calls
        train_step(model, optimizer, batch(step))
        updates = schedule.fires(step)
        assert same_bits(everything(optimizer), groups) == updates
        assert (optimizer.calls == calls) == updates
    assert optimizer.param_groups[0]["lr"] is lr


@checks("V3")
def test_what_an_optimizer_writes_outside_the_masks_is_gone_after_each_step() -> None:
    """Adamax writes eps, a subclass may write anything: state outside the masks is fresh in every copy of the bits."""

    def outside(model: nn.Module, optimizer: Optimizer, mask: Tensor) -> bool:
        state = optimizer.state[model.get_parameter("0.weight")]
        return any(bool(values[~mask].any()) for values in state.values() if values.shape == mask.shape)

    for make in (torch.optim.Adamax, own.Centered):
        model = mlp()
        optimizer = make(model.parameters(), 0.01)
        sparse = sparsify(model, optimizer, rigl())
        for step in range(12):
            train_step(model, optimizer, batch(step))
            assert not outside(model, optimizer, sparse.masks["0.weight"])


class Demanding(torch.optim.SGD):
    """An optimizer that fails without gradients, since it looks at all of them together."""

    def step(self, closure: Any = None) -> Any:
        grads = [param.grad for param in self.param_groups[0]["params"] if param.grad is not None]
        torch.stack([grad.norm() for grad in grads])
        return super().step(closure)


@checks("R1", "V4")
@pytest.mark.parametrize("make", [own.Restless, Demanding])
def test_optimizers_that_do_not_stand_still_without_gradients_are_taken_back(make: type[torch.optim.SGD]) -> None:
    model = mlp()
    optimizer = make(model.parameters(), 0.1, momentum=0.9)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(9):
        (weights, states), old = snapshot(model, optimizer), sparse.masks
        train_step(model, optimizer, batch(step))
        new_weights, new_states = snapshot(model, optimizer)
        updates = SCHEDULE.fires(step)
        assert (
            same_bits([weights["0.bias"], states["0.bias"]], [new_weights["0.bias"], new_states["0.bias"]]) == updates
        )
        keep = old["0.weight"] & sparse.masks["0.weight"]
        assert same_bits(weights["0.weight"][keep], new_weights["0.weight"][keep]) == updates
