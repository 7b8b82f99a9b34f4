"""Methods with memory, and those that change the gradient, in all kinds of PyTorch trainings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import DeepR, UpdateSchedule
from rigl_core.testing import score_oracle
from rigl_core.testing.checks import checks
from tests.torch.helpers import (
    METHODS,
    batch,
    bits,
    dense_gradients,
    loss_of,
    mlp,
    same_bits,
    snapshot,
    train_step,
)

KINDS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, 0.1, momentum=0.9),
    "fused adamw": lambda params: torch.optim.AdamW(params, 0.01, fused=True),
}


def training(method: str, kind: str = "sgd") -> tuple[nn.Sequential, Optimizer, SparseTraining]:
    model = mlp()
    optimizer = KINDS[kind](model.parameters())
    return model, optimizer, sparsify(model, optimizer, METHODS[method])


def parts_of(step: int) -> Callable[[nn.Module], None]:
    """A backward pass over three micro-batches."""

    def backward(model: nn.Module) -> None:
        for part in range(3):
            (loss_of(model, batch(step, part)) / 3).backward()

    return backward


@checks("M9", "G2")
def test_the_momentum_is_that_of_the_accumulated_dense_gradient() -> None:
    model, optimizer, sparse = training("SNFS")
    expected = {name: torch.zeros(mask.numel()) for name, mask in sparse.masks.items()}
    for step in range(8):
        dense = dense_gradients(model, parts_of(step))
        optimizer.zero_grad()
        parts_of(step)(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        optimizer.step()
        for name, momentum in sparse.state_dict()["memory"]["momentum"].items():
            gradient = dense[name]
            assert gradient is not None
            expected[name] = expected[name] * 0.9 + gradient.reshape(-1) * (1 - 0.9)
            assert same_bits(momentum, expected[name])
    assert all(momentum[~sparse.masks[name].reshape(-1)].any() for name, momentum in expected.items())


@checks("M8", "G1")
@pytest.mark.parametrize("kind", KINDS)
def test_clipping_sees_the_gradient_without_noise_and_pull(kind: str) -> None:
    model = mlp()
    optimizer = KINDS[kind](model.parameters())
    schedule = UpdateSchedule(begin=50, end=51)
    sparse = sparsify(model, optimizer, DeepR(0.7, schedule=schedule, l1=0.5, noise=0.25))
    scaler = GradScaler("cpu", init_scale=2.0**10)
    for step in range(4):
        twin, twin_optimizer = copy.deepcopy((model, optimizer))
        twin_optimizer.zero_grad()
        loss_of(twin, batch(step)).backward()
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batch(step))).backward()
        for name, mask in sparse.masks.items():
            seen, param = model.get_parameter(name).grad, twin.get_parameter(name)
            assert seen is not None
            assert param.grad is not None
            assert torch.equal(seen, torch.where(mask, param.grad, 0) * 2.0**10)
            drawn = torch.tensor(score_oracle.noise(0, name, step, mask.numel())).reshape(mask.shape)
            param.grad = torch.where(mask, param.grad + 0.5 * param.detach().sign() + 0.25 * drawn, 0)
        scaler.step(optimizer)
        scaler.update()
        twin_optimizer.step()
        for name, param in model.named_parameters():
            torch.testing.assert_close(param, twin.get_parameter(name))


@checks("G2", "M6", "M8", "M9")
@pytest.mark.parametrize("clip", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_scaled_training_is_the_unscaled_one(method: str, kind: str, clip: bool) -> None:
    """The scales are powers of two, so they do not change the rounding."""
    model, optimizer, sparse = training(method, kind)
    scaled, scaled_optimizer, scaled_sparse = training(method, kind)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    for step in range(14):
        optimizer.zero_grad()
        parts_of(step)(model)
        scaled_optimizer.zero_grad()
        for part in range(3):
            scaler.scale(loss_of(scaled, batch(step, part)) / 3).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.unscale_(scaled_optimizer)
            nn.utils.clip_grad_norm_(scaled.parameters(), 0.1)
        optimizer.step()
        scaler.step(scaled_optimizer)
        scaler.update()
    assert same_bits(scaled_sparse.state_dict(), sparse.state_dict())
    assert same_bits(snapshot(scaled, scaled_optimizer), snapshot(model, optimizer))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_skipped_step_changes_nothing(method: str, kind: str) -> None:
    model, optimizer, sparse = training(method, kind)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    for step in range(2):
        before, masks = snapshot(model, optimizer), sparse.masks
        optimizer.zero_grad()
        loss = loss_of(model, batch(step))
        scaler.scale(loss * float("inf") if step == 1 else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert same_bits(snapshot(model, optimizer), before) == (step == 1)
        assert same_bits(sparse.masks, masks)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_closure_gives_the_same_training(method: str, kind: str) -> None:
    model, optimizer, sparse = training(method, kind)
    other, other_optimizer, other_sparse = training(method, kind)
    for step in range(9):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            for name, mask in sparse.masks.items():
                assert not model.get_parameter(name)[~mask].any()
            loss = loss_of(model, batch(step))
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        train_step(other, other_optimizer, batch(step))
    assert same_bits(sparse.state_dict(), other_sparse.state_dict())
    assert same_bits(snapshot(model, optimizer), snapshot(other, other_optimizer))


@checks("Z1")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_remembered_follows_a_model_to_another_dtype(method: str, dtype: torch.dtype) -> None:
    model, optimizer, sparse = training(method)
    for step in range(4):
        train_step(model, optimizer, batch(step))
    model.to(dtype)
    for buffers in optimizer.state.values():
        buffers["momentum_buffer"] = buffers["momentum_buffer"].to(dtype)
    masks = sparse.masks
    for step in range(4, 13):
        x, labels = batch(step)
        train_step(model, optimizer, (x.to(dtype), labels))
        for name, mask in sparse.masks.items():
            assert not model.get_parameter(name)[~mask].any()
    assert not same_bits(sparse.masks, masks)
    for kind, arrays in sparse.state_dict()["memory"].items():
        wide = torch.promote_types(dtype, torch.float32)
        assert all(array.dtype == (wide if kind == "momentum" else dtype) for array in arrays.values())


@checks("T3")
@pytest.mark.parametrize("method", METHODS)
def test_the_memory_order_of_weights_changes_nothing(method: str) -> None:
    def run(memory_format: torch.memory_format) -> Any:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).to(memory_format=memory_format)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        sparse = sparsify(model, optimizer, METHODS[method])
        for step in range(9):
            optimizer.zero_grad()
            slopes = [
                (param.detach() * 8).round() + (torch.arange(param.numel()) + step).view_as(param) % 3
                for param in model.parameters()
            ]
            torch.stack(
                [(param * slope).sum() for param, slope in zip(model.parameters(), slopes, strict=True)]
            ).sum().backward()
            optimizer.step()
        return sparse.state_dict(), snapshot(model, optimizer)

    assert same_bits(run(torch.contiguous_format), run(torch.channels_last))


def test_only_what_is_needed_is_remembered() -> None:
    for method, recipe in METHODS.items():
        sparse = training(method)[2]
        assert set(sparse.state_dict()["memory"]) == set(recipe.rule.memories)
    memory = training("DNW")[2].state_dict()["memory"]
    assert list(memory) == ["shadow"]
    assert all(bits(array).any() for array in memory["shadow"].values())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_model_and_a_compiled_step_train_the_same(method: str) -> None:
    def run(*, compiled: bool) -> Any:
        model, optimizer, sparse = training(method)
        forward = torch.compile(model, backend="aot_eager") if compiled else model
        make_step = torch.compile(optimizer.step, backend="aot_eager") if compiled else optimizer.step
        for step in range(9):
            optimizer.zero_grad()
            loss_of(forward, batch(step)).backward()
            make_step()
        return sparse.state_dict(), snapshot(model, optimizer)

    assert same_bits(run(compiled=True), run(compiled=False))
