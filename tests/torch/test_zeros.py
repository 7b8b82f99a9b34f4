"""Zeros outside the masks stay, whatever other code writes there. Only element-wise optimizers are trusted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_backends.torch.state import keeps_zeros
from rigl_core import SparsityWarning
from rigl_core.testing.checks import checks
from tests.torch import optimizers as own
from tests.torch.helpers import batch, loss_of, mlp, per_weight, rigl, snapshot, train_step

Write = Callable[[nn.Sequential, Optimizer], Any]


def momentum(model: nn.Module, **options: Any) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **options)


def check_state(model: nn.Module, optimizer: Optimizer, sparse: SparseTraining) -> None:
    _, states = snapshot(model, optimizer)
    for name, mask in sparse.masks.items():
        for values in per_weight(states[name], mask).values():
            assert not values[~mask].any()


def check_zeros(model: nn.Module, optimizer: Optimizer, sparse: SparseTraining) -> None:
    weights, _ = snapshot(model, optimizer)
    for name, mask in sparse.masks.items():
        assert weights[name][mask].any()
        assert not weights[name][~mask].any()
    check_state(model, optimizer, sparse)


@torch.no_grad()
def add_to_weights(model: nn.Module, _: Optimizer) -> None:
    for param in model.parameters():
        param.add_(1.0)


def load_a_dense_model(model: nn.Sequential, _: Optimizer) -> None:
    model.load_state_dict(mlp(seed=1).state_dict())


def give_other_data(model: nn.Sequential, _: Optimizer) -> None:
    for param in model.parameters():
        param.data = param.data + 1


def load_a_dense_state(_: nn.Sequential, optimizer: Optimizer) -> None:
    other = mlp()
    dense = momentum(other)
    train_step(other, dense, batch(0))
    optimizer.load_state_dict(dense.state_dict())


def add_to_state(_: nn.Sequential, optimizer: Optimizer) -> None:
    for state in optimizer.state.values():
        state["momentum_buffer"].add_(1.0)


def move_to_doubles(model: nn.Sequential, _: Optimizer) -> None:
    add_to_weights(model, _)
    model.to(torch.float64).to(torch.float32)


def told(write: Write) -> Any:
    """What the step after a write tells: weights outside the masks, and a state without a topology."""
    if write is add_to_state:
        return nullcontext()
    message = "no topology" if write is load_a_dense_state else "weights lie outside their masks: .* of '2.weight'"
    return pytest.warns(SparsityWarning, match=message)


@checks("V3", "Z1", "P4")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    "write",
    [add_to_weights, load_a_dense_model, give_other_data, load_a_dense_state, add_to_state, move_to_doubles],
)
def test_what_is_written_outside_the_mask_is_gone_after_the_next_step(write: Write, fused: bool) -> None:
    model = mlp()
    optimizer = momentum(model, fused=fused)
    sparse = sparsify(model, optimizer, rigl())
    train_step(model, optimizer, batch(0))
    for step in range(3, 7):  # ordinary ones; updates zero everything anyway
        write(model, optimizer)
        with told(write):
            train_step(model, optimizer, batch(step))
        check_zeros(model, optimizer, sparse)


@checks("Z1")
def test_what_an_earlier_hook_writes_after_the_step_is_gone() -> None:
    """Such a hook runs before ours, so its writes look like a part of the optimizer's step."""
    model = mlp()
    optimizer = momentum(model)
    optimizer.register_step_post_hook(lambda *_: add_to_weights(model, optimizer))
    sparse = sparsify(model, optimizer, rigl())
    for step in range(6):
        train_step(model, optimizer, batch(step))
        check_zeros(model, optimizer, sparse)


@checks("Z1")
def test_what_a_later_hook_writes_after_the_step_does_not_reach_the_optimizer() -> None:
    model = mlp()
    optimizer = momentum(model)
    sparse = sparsify(model, optimizer, rigl())
    optimizer.register_step_post_hook(lambda *_: add_to_weights(model, optimizer))
    optimizer.register_step_post_hook(lambda *_: check_state(model, optimizer, sparse))
    for step in range(6):
        with pytest.warns(SparsityWarning, match="weights lie outside their masks"):
            train_step(model, optimizer, batch(step))


@checks("Z1")
@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (own.Restless, torch.float32),
        (lambda params: torch.optim.Adam(params, eps=0.0), torch.float32),  # 0 / 0 outside the mask
        (lambda params: torch.optim.Adam(params, lr=1e-3, foreach=False), torch.float16),  # where its eps is 0
    ],
    ids=["subclass", "no eps", "eps too small for halves"],
)
def test_optimizers_that_do_not_keep_zeros(make: Callable[..., Optimizer], dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    optimizer = make(model.parameters())
    sparse = sparsify(model, optimizer, rigl())
    assert not keeps_zeros(optimizer, {dtype})
    for step in range(6):
        optimizer.zero_grad()
        inputs, labels = batch(step)
        loss_of(model, (inputs.to(dtype), labels)).backward()
        optimizer.step()
        weights, _ = snapshot(model, optimizer)
        for name, mask in sparse.masks.items():
            assert not weights[name][~mask].any()


@torch.no_grad()
def test_element_wise_optimizers_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary step makes two of three passes over per-weight arrays; it costs little else."""
    model = mlp()
    optimizer = momentum(model)
    sparsify(model, optimizer, rigl())
    assert keeps_zeros(optimizer, {torch.float32})
    assert keeps_zeros(torch.optim.Adam(model.parameters()), {torch.float32, torch.bfloat16})
    masked: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        "rigl_backends.torch.layer.zero_outside", lambda values, inside: masked.append(tuple(values.shape))
    )
    with torch.enable_grad():
        for step in range(2):
            train_step(model, optimizer, batch(step))
    assert len(masked) == 2 * 2 * 2 + 2  # two layers, twice, in two steps; and before the first their weights
