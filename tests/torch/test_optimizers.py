"""Every optimizer of torch.optim trains sparsely, and an update takes the place of its step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import SET, Recipe
from rigl_core.testing.checks import checks
from tests.torch.helpers import SCHEDULE, batch, loss_of, mlp, per_weight, rigl, same_bits, snapshot, train_step

DECAY = {"weight_decay": 0.01}
IMPLEMENTATIONS: dict[str, dict[str, bool]] = {
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
ALL, NOT_FUSED = ("loop", "foreach", "fused"), ("loop", "foreach")
OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any], Sequence[str]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}, ALL),
    "sgd-decay": (torch.optim.SGD, {"lr": 0.1, **DECAY}, ALL),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, **DECAY}, ALL),
    "dampened": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "maximize": True}, ALL),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, **DECAY}, ALL),
    "adam": (torch.optim.Adam, {"lr": 0.01, **DECAY}, ALL),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}, ALL),
    "amsgrad": (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True}, ALL),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, **DECAY}, NOT_FUSED),
    "rmsprop-centered": (torch.optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.9, **DECAY}, NOT_FUSED),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.1, **DECAY}, ALL),
    "nadam": (torch.optim.NAdam, {"lr": 0.01, **DECAY}, NOT_FUSED),
    "radam": (torch.optim.RAdam, {"lr": 0.01, **DECAY}, NOT_FUSED),
    "adafactor": (torch.optim.Adafactor, {"lr": 0.01, **DECAY}, NOT_FUSED),
    "adadelta": (torch.optim.Adadelta, {"lr": 1.0, **DECAY}, NOT_FUSED),
    "adamax": (torch.optim.Adamax, {"lr": 0.01, **DECAY}, NOT_FUSED),
    "asgd": (torch.optim.ASGD, {"lr": 0.1, "t0": 3, **DECAY}, NOT_FUSED),
    "rprop": (torch.optim.Rprop, {"lr": 0.01}, NOT_FUSED),
    "muon": (torch.optim.Muon, {"lr": 0.01, **DECAY}, ("",)),
}
CASES = [
    (name, implementation) for name, (_, _, implementations) in OPTIMIZERS.items() for implementation in implementations
]
FIRST_OPTIONS = {"sum": "initial_accumulator_value", "step_size": "lr"}
"""The options that give the first numbers of such state; all other state starts at 0."""


def fresh_state(model: nn.Module, optimizer: Optimizer) -> dict[str, dict[str, float]]:
    """What the optimizer gives a new weight, in each of its groups."""
    names = {param: name for name, param in model.named_parameters()}
    first = [
        {key: group[own] for key, own in FIRST_OPTIONS.items() if own in group} for group in optimizer.param_groups
    ]
    pairs = zip(optimizer.param_groups, first, strict=True)
    return {names[param]: numbers for group, numbers in pairs for param in group["params"]}


def make(name: str, implementation: str) -> tuple[nn.Sequential, Optimizer]:
    """A model and its optimizer; the second half of the parameters has another learning rate."""
    cls, options, _ = OPTIMIZERS[name]
    model = mlp(bias=name != "muon")  # which takes matrices only
    params = list(model.parameters())
    half = len(params) // 2
    groups = [{"params": params[:half]}, {"params": params[half:], "lr": options["lr"] / 2}]
    return model, cls(groups, **options, **IMPLEMENTATIONS.get(implementation, {}))


def dense_step(model: nn.Module, optimizer: Optimizer, masks: dict[str, Tensor], step: int) -> tuple[Any, Any]:
    """The optimizer's own step, in a copy without hooks, on gradients that are masked by hand.

    Outside the masks weights are 0 after it, and their state is that of new weights.
    """
    model, optimizer = copy.deepcopy((model, optimizer))
    optimizer.zero_grad()
    loss_of(model, batch(step)).backward()
    for name, param in model.named_parameters():
        if name in masks:
            assert param.grad is not None
            param.grad[~masks[name]] = 0
    optimizer.step()
    with torch.no_grad():
        for name, param in model.named_parameters():
            if name in masks:
                param[~masks[name]] = 0
                for key, values in per_weight(optimizer.state[param], param).items():
                    number = fresh_state(model, optimizer)[name].get(key, 0)
                    values[~masks[name] & (values != number)] = number
    return snapshot(model, optimizer)


def check_fresh(values: Tensor, number: float) -> None:
    assert torch.equal(values, torch.full_like(values, number))


def check_outside(weights: dict[str, Tensor], states: dict[str, Any], sparse: SparseTraining, fresh: Any) -> None:
    """Outside the masks weights are 0, and their state is that of new weights."""
    for (name, mask), active in zip(sparse.masks.items(), sparse.plan.active, strict=True):
        assert int(mask.sum()) == active
        check_fresh(weights[name][~mask], 0)
        for key, values in per_weight(states[name], mask).items():
            check_fresh(values[~mask], fresh[name].get(key, 0))


def check_update(
    before: tuple[Any, Any], after: tuple[Any, Any], old: dict[str, Tensor], new: dict[str, Tensor], fresh: Any
) -> None:
    """Survivors keep their bits, newly active weights are new, and nothing else has changed."""
    (weights, states), (new_weights, new_states) = before, after
    for name, weight in weights.items():
        state, new_state = states[name], new_states[name]
        keep = old[name] & new[name] if name in old else torch.ones_like(weight, dtype=torch.bool)
        held = per_weight(state, weight)
        for value, new_value, number in [
            (weight, new_weights[name], 0),
            *((state[key], new_state[key], fresh[name].get(key, 0)) for key in held),
        ]:
            assert same_bits(value[keep], new_value[keep])
            check_fresh(new_value[~keep], number)
        shared = state.keys() - held.keys()  # step counters, row statistics
        assert state.keys() == new_state.keys()
        assert all(same_bits(state[key], new_state[key]) for key in shared)


@checks("B1", "R1", "V1", "V3", "V4", "Z1")
@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_every_optimizer_trains_sparsely(name: str, implementation: str) -> None:
    model, optimizer = make(name, implementation)
    sparse = sparsify(model, optimizer, rigl())
    assert len(sparse.masks) == 2
    moved, fresh = 0, fresh_state(model, optimizer)
    for step in range(30):
        before, old, updating = snapshot(model, optimizer), sparse.masks, SCHEDULE.fires(sparse.step)
        expected = None if updating else dense_step(model, optimizer, old, step)
        train_step(model, optimizer, batch(step))
        after, new = snapshot(model, optimizer), sparse.masks
        check_outside(*after, sparse, fresh)
        if updating:
            check_update(before, after, old, new, fresh)
            moved += sum(int((new[layer] & ~old[layer]).sum()) for layer in new)
        else:
            assert same_bits(old, new)
            assert same_bits(expected, after)
            assert not same_bits(before[0], after[0])
    assert sparse.step == 30
    assert moved >= 30


@pytest.mark.parametrize("name", ["momentum", "adam"])
@pytest.mark.parametrize("style", ["positional", "keyword"])
def test_closures_give_the_same_training(name: str, style: str) -> None:
    model, optimizer = make(name, "foreach")
    sparse = sparsify(model, optimizer, rigl())
    reference, reference_optimizer = make(name, "foreach")
    reference_sparse = sparsify(reference, reference_optimizer, rigl())
    for step in range(15):
        calls = []

        def closure(step: int = step, calls: list[float] = calls) -> Tensor:
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = loss_of(model, batch(step))
            loss.backward()
            calls.append(loss.item())
            return loss

        before = loss_of(model, batch(step)).item()
        loss: Any = optimizer.step(closure) if style == "positional" else optimizer.step(closure=closure)
        assert calls == [before] == [loss.item()]
        train_step(reference, reference_optimizer, batch(step))
        assert same_bits(sparse.state_dict(), reference_sparse.state_dict())
        assert same_bits(snapshot(model, optimizer), snapshot(reference, reference_optimizer))


def test_a_closure_that_fails_leaves_the_step_to_be_done_again() -> None:
    model, optimizer = make("adam", "loop")
    sparse = sparsify(model, optimizer, rigl())
    for step in range(2):
        train_step(model, optimizer, batch(step))
    before, state = snapshot(model, optimizer), sparse.state_dict()

    def closure() -> float:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        optimizer.step(closure)
    assert same_bits(snapshot(model, optimizer), before)
    assert same_bits(sparse.state_dict(), state)
    train_step(model, optimizer, batch(2))
    assert sparse.step == 3
    assert not same_bits(sparse.masks, state["masks"])


@checks("R2")
@pytest.mark.parametrize(
    "recipe",
    [SET(0.7, schedule=SCHEDULE), Recipe(0.7, schedule=SCHEDULE, on_update="after")],
    ids=["random-growth", "gradient-growth"],
)
def test_methods_that_update_after_the_gradient_step(recipe: Recipe) -> None:
    model, optimizer = make("adamw", "fused")
    sparse = sparsify(model, optimizer, recipe)
    moved = 0
    for step in range(30):
        old, updating = sparse.masks, SCHEDULE.fires(sparse.step)
        stepped = dense_step(model, optimizer, old, step)
        train_step(model, optimizer, batch(step))
        if updating:
            check_update(stepped, snapshot(model, optimizer), old, sparse.masks, fresh_state(model, optimizer))
            moved += sum(int((mask & ~old[layer]).sum()) for layer, mask in sparse.masks.items())
        else:
            assert same_bits(stepped, snapshot(model, optimizer))
            assert same_bits(old, sparse.masks)
    assert moved >= 20
