"""Loss scaling, mixed precision, other dtypes, and weights in another memory order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core.testing.checks import checks
from tests.torch.helpers import (
    SCHEDULE,
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

Training = tuple[nn.Sequential, Optimizer, SparseTraining, GradScaler]


def scaled_training(kind: str) -> Training:
    model = mlp()
    optimizer: Optimizer = (
        torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        if kind == "sgd"
        else torch.optim.AdamW(model.parameters(), 0.01, fused=True)
    )
    return model, optimizer, sparsify(model, optimizer, rigl()), GradScaler("cpu", init_scale=2.0**10)


def scaled_step(training: Training, step: int, *, overflow: bool = False, clip: bool = False) -> None:
    model, optimizer, _, scaler = training
    optimizer.zero_grad()
    loss = loss_of(model, batch(step))
    scaler.scale(loss * float("inf") if overflow else loss).backward()
    if clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()


@checks("G2")
@pytest.mark.parametrize("clip", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("kind", ["sgd", "fused adamw"])
def test_a_scaled_training_moves_as_the_unscaled_one(kind: str, clip: bool) -> None:
    """The scales are powers of two, so they do not change the rounding; clipping does not reorder gradients."""
    scaled = scaled_training(kind)
    model, optimizer, sparse, _ = scaled_training(kind)
    for step in range(15):
        scaled_step(scaled, step, clip=clip)
        optimizer.zero_grad()
        loss_of(model, batch(step)).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert same_bits(scaled[2].state_dict(), sparse.state_dict())
    assert same_bits(snapshot(*scaled[:2]), snapshot(model, optimizer))


@checks("T5", "G2")
@pytest.mark.parametrize("kind", ["sgd", "fused adamw"])
def test_an_overflow_at_an_update_step_defers_the_update(kind: str) -> None:
    training = scaled_training(kind)
    model, optimizer, sparse, scaler = training
    for step in range(2):
        scaled_step(training, step)
    before, masks = snapshot(model, optimizer), sparse.masks
    for step in (2, 3):
        scaled_step(training, step, overflow=True)
        assert same_bits(snapshot(model, optimizer), before)
        assert same_bits(sparse.masks, masks)
    assert scaler.get_scale() == 2.0**8
    dense = dense_gradients(model, lambda twin: loss_of(twin, batch(4)).backward())
    scaled_step(training, 4)
    # An optimizer that the scaler never calls has made no step; one that skips by itself has.
    assert sparse.step == (3 if kind == "sgd" else 5)
    for position, (name, new) in enumerate(sparse.masks.items()):
        grad = dense[name]
        assert grad is not None
        drop_count = int(sparse.plan.drop_counts[0, position])
        assert torch.equal(new, expected_mask(before[0][name], grad, masks[name], drop_count))
        assert not torch.equal(new, masks[name])
    assert same_bits(snapshot(model, optimizer)[0]["0.bias"], before[0]["0.bias"])
    masks = sparse.masks
    scaled_step(training, 5)
    assert same_bits(sparse.masks, masks)
    assert not same_bits(snapshot(model, optimizer)[0]["0.bias"], before[0]["0.bias"])


@pytest.mark.parametrize("kind", ["sgd", "fused adamw"])
def test_an_overflow_at_an_ordinary_step_changes_nothing(kind: str) -> None:
    training = scaled_training(kind)
    model, optimizer, sparse, _ = training
    scaled_step(training, 0)
    before, masks = snapshot(model, optimizer), sparse.masks
    scaled_step(training, 1, overflow=True)
    assert same_bits(snapshot(model, optimizer), before)
    assert same_bits(sparse.masks, masks)


@checks("T5")
@pytest.mark.parametrize("kind", ["sgd", "fused adamw"])
def test_an_overflow_in_a_dense_parameter_defers_the_update_too(kind: str) -> None:
    """The scaler skips the step because of the overflow; the layers' own gradients are finite."""
    training = scaled_training(kind)
    model, optimizer, sparse, scaler = training
    for step in range(2):
        scaled_step(training, step)
    before, masks = snapshot(model, optimizer), sparse.masks
    optimizer.zero_grad()
    scaler.scale(loss_of(model, batch(2)) + (model[2].bias * float("inf")).sum()).backward()
    assert model[0].weight.grad.isfinite().all()
    scaler.step(optimizer)
    scaler.update()
    assert same_bits(snapshot(model, optimizer), before)
    assert same_bits(sparse.masks, masks)
    scaled_step(training, 3)
    assert not same_bits(sparse.masks, masks)


@checks("T5")
def test_an_overflow_that_the_scaler_alone_has_found_defers_the_update() -> None:
    """In other processes, for example: the gradients of this one are finite."""
    training = model, optimizer, sparse, _ = scaled_training("fused adamw")
    for step in range(2):
        scaled_step(training, step)
    before, fused = sparse.masks, torch.ones(())
    for found, stays in ((1.0, True), (0.0, False)):
        optimizer.zero_grad()
        loss_of(model, batch(2)).backward()
        optimizer.grad_scale, optimizer.found_inf = fused, torch.tensor(found)  # type: ignore[attr-defined]
        optimizer.step()
        assert same_bits(sparse.masks, before) == stays


def test_autocast_to_bfloat16() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparse = sparsify(model, optimizer, rigl())
    first = sparse.masks
    for step in range(10):
        optimizer.zero_grad()
        x, labels = batch(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(x)
            assert logits.dtype == torch.bfloat16
            loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
    for name, mask in sparse.masks.items():
        assert torch.equal(model.get_parameter(name) != 0, mask)
        assert not torch.equal(mask, first[name])


@checks("Z1")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "in mid-training"])
def test_the_model_may_change_its_dtype_after_sparsify(dtype: torch.dtype, late: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, rigl())
    if late:
        for step in range(9):
            train_step(model, optimizer, batch(step))
    before = sparse.masks
    model.to(dtype)
    assert same_bits(sparse.masks, before)
    for step in range(9, 18):
        x, labels = batch(step)
        updating = SCHEDULE.fires(sparse.step)
        train_step(model, optimizer, (x.to(dtype), labels))
        for (name, mask), active in zip(sparse.masks.items(), sparse.plan.active, strict=True):
            assert int(mask.sum()) == active
            assert not model.get_parameter(name)[~mask].any()
            assert updating or model.get_parameter(name).grad[~mask].eq(0).all()
    assert not same_bits(sparse.masks, before)


def convnet() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


@checks("T3")
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_memory_order_of_weights_changes_nothing(when: str) -> None:
    """Ties go to the lower flat index in the array's own C order, whatever its order in memory."""

    def run(channels_last: str | None) -> Any:
        model = convnet()
        if channels_last == "before":
            model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        sparse = sparsify(model, optimizer, rigl())
        if channels_last == "after":
            model.to(memory_format=torch.channels_last)
        for step in range(13):
            optimizer.zero_grad()
            # Gradients with many equal values: the gradient of sum(w * g) is g.
            terms = [(param * pattern(param, step)).sum() for param in model.parameters()]
            torch.stack(terms).sum().backward()
            optimizer.step()
        assert model[2].weight.is_contiguous() == (channels_last is None)
        return sparse.masks, snapshot(model, optimizer)

    plain, other = run(None), run(when)
    assert same_bits(plain, other)
    assert not same_bits(plain[0]["0.weight"], run_initial()["0.weight"])


def pattern(param: Tensor, step: int) -> Tensor:
    values = torch.arange(param.numel(), dtype=param.dtype).reshape(param.shape)
    return (values + step) % 3


def run_initial() -> dict[str, Tensor]:
    model = convnet()
    return sparsify(model, torch.optim.SGD(model.parameters(), 0.1), rigl()).masks


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_model_and_a_compiled_step_train_the_same() -> None:
    """The backend is the compiler's part that handles gradients and hooks. Code generation needs a C++ compiler."""

    def run(*, compiled: bool) -> Any:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        sparse = sparsify(model, optimizer, rigl())
        forward = torch.compile(model, backend="aot_eager") if compiled else model
        make_step = torch.compile(optimizer.step, backend="aot_eager") if compiled else optimizer.step
        for step in range(9):
            optimizer.zero_grad()
            loss_of(forward, batch(step)).backward()
            updating = SCHEDULE.fires(sparse.step)
            for name, mask in sparse.masks.items():
                assert model.get_parameter(name).grad[~mask].any() == updating
            make_step()
        return sparse.state_dict(), snapshot(model, optimizer)

    assert same_bits(run(compiled=True), run(compiled=False))
