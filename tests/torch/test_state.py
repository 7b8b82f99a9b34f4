"""What an optimizer holds for each weight is found out by evidence; what it holds besides is left alone."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_backends.torch.probe import probe
from rigl_backends.torch.twin import leaves
from rigl_core.testing.checks import checks
from tests.torch import optimizers as own
from tests.torch import optimizers_page
from tests.torch.helpers import SCHEDULE, batch, hooks_of, loss_of, rigl, same_bits, snapshot, train_step

Make = Callable[..., Optimizer]
KINDS: dict[str, tuple[Make, dict[str, float | int | None], set[str]]] = {
    "shampoo": (own.Shampoo, {"moment": 0.0}, {"left", "right.0"}),
    "rotated": (own.Rotated, {"moment": 0.0}, {"left", "square"}),
    "counting": (own.Counting, {"moment": 0.0}, {"count"}),
    "stacked": (own.Stacked, {"both": 0.0, "flat": 0.0, "past.0": 0.0, "past.1": 0.0}, set()),
    "late": (lambda params: own.Late(params, first=9), {"moment": 0.0}, set()),
    "eager": (own.Eager, {"sum": 0.5}, set()),
    "8 bits": (own.EightBits, {"state1": 127}, {"absmax1", "qmap1"}),
    "centered": (own.Centered, {"moment": 0.0}, set()),
    "rising": (own.Rising, {"square": 1.0}, set()),
    "schedule-free": (own.ScheduleFree, {"z": None}, set()),
    "holding": (own.Holding, {"inner.exp_avg": 0.0, "inner.exp_avg_sq": 0.0}, {"inner.step"}),
    "sealed": (
        lambda params: own.Sealed(params, Lock()),
        {"inner.exp_avg": 0.0, "inner.exp_avg_sq": 0.0},
        {"inner.step"},
    ),
    "adafactor": (torch.optim.Adafactor, {}, {"row_var", "col_var", "step"}),
    "muon": (torch.optim.Muon, {"momentum_buffer": 0.0}, set()),
}
SHAPES = [(30, 30), (30, 20), (70, 70), (16, 1), (1, 16), (300, 400)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_finds_what_is_per_weight_and_what_a_new_weight_gets(kind: str, shape: tuple[int, int]) -> None:
    make, fresh, others = KINDS[kind]
    param = nn.Parameter(torch.ones(shape))
    optimizer = make([param])
    state, random = copy.deepcopy(list(optimizer.state.values())), torch.get_rng_state()
    found = probe(optimizer, param)
    assert {".".join(path): number for path, number in found.fresh.items()} == fresh
    assert {".".join(path) for path in found.others} == others
    assert same_bits(list(optimizer.state.values()), state)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("shape", [(40,), (4, 4, 3, 3), (64, 64, 3, 3), (8, 8, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_probe_sees_any_shape_and_precision(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    param = nn.Parameter(torch.ones(shape, dtype=dtype))
    adam = probe(torch.optim.Adam([param]), param)
    assert adam.fresh == {("exp_avg",): 0.0, ("exp_avg_sq",): 0.0}
    assert adam.others == {("step",)}


def test_a_probe_goes_past_schedulers_hooks_and_other_parameters() -> None:
    model = own.square_model()
    optimizer = torch.optim.Adam(model.parameters())
    torch.optim.lr_scheduler.StepLR(optimizer, 10)
    called: list[object] = []
    optimizer.register_step_pre_hook(lambda *_: called.append(_))
    before = snapshot(model, optimizer)
    assert probe(optimizer, model[2].weight).fresh == {("exp_avg",): 0.0, ("exp_avg_sq",): 0.0}
    assert same_bits(snapshot(model, optimizer), before)
    assert not called


def tensors(optimizer: Optimizer, param: nn.Parameter) -> dict[str, Tensor]:
    inner = getattr(optimizer, "inner", optimizer)
    return {".".join(path): tensor.clone() for path, tensor in leaves(inner.state.get(param)).items()}


def check_outside(model: nn.Module, optimizer: Optimizer, sparse: SparseTraining, fresh: Any) -> None:
    for name, mask in sparse.masks.items():
        param = model.get_parameter(name)
        assert not param[~mask].any()
        if mask.all():
            continue
        for key, values in tensors(optimizer, param).items():
            if key in fresh:
                number = 0.0 if fresh[key] is None else fresh[key]
                outside = values.reshape(-1, mask.numel())[:, ~mask.reshape(-1)]
                assert torch.equal(outside, torch.full_like(outside, number)), (name, key)


def check_update(before: Any, after: Any, old: Tensor, new: Tensor, fresh: Any) -> None:
    """Survivors keep their state, new weights have a fresh one, and what is not per weight stays as it is."""
    assert before.keys() == after.keys()
    keep = (old & new).reshape(-1)
    for key, values in before.items():
        if key in fresh:
            was, now = (each.reshape(-1, keep.numel()) for each in (values, after[key]))
            assert same_bits(was[:, keep], now[:, keep])
        else:
            assert same_bits(values, after[key]), key


@checks("R1", "V1", "V3", "V4", "Z1")
@pytest.mark.parametrize("kind", KINDS)
def test_trainings_with_state_of_every_kind(kind: str) -> None:
    make, fresh, _ = KINDS[kind]
    fresh = {key.removeprefix("inner."): number for key, number in fresh.items()}
    model = own.square_model()
    optimizer = make([param for param in model.parameters() if param.ndim > 1])
    sparse = sparsify(model, optimizer, rigl())
    weight, moved = model[2].weight, 0
    for step in range(30):
        before, old = tensors(optimizer, weight), sparse.masks["2.weight"]
        train_step(model, optimizer, batch(step))
        new = sparse.masks["2.weight"]
        check_outside(model, optimizer, sparse, fresh)
        if SCHEDULE.fires(step):
            check_update(before, tensors(optimizer, weight), old, new, fresh)
            moved += int((new & ~old).sum())
    assert moved >= 30


REFUSED: dict[str, tuple[Make, str]] = {
    "codes": (own.UnknownCodes, "it holds state1 in codes of which 0 is not known"),
    "4 bits": (own.FourBits, "it packs several numbers of packed into a byte"),
    "subclass": (own.Subclassed, "it holds moment as a Wrapped"),
    "broken": (own.Broken, r"a copy of it, which holds one small parameter, fails: .*there is no network"),
    "sparse gradients": (torch.optim.SparseAdam, "a copy of it, which holds one small parameter, fails"),
}


@checks("P3")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_told_is_refused_before_anything_changes(kind: str) -> None:
    make, reason = REFUSED[kind]
    model = own.square_model()
    optimizer = make(list(model.parameters()))
    before = snapshot(model, optimizer)
    message = (
        rf"optimizer {type(optimizer).__name__} cannot follow .* in layer '0\.weight': {reason}.* exclude the layer"
    )
    with pytest.raises(ValueError, match=message):
        sparsify(model, optimizer, rigl())
    assert same_bits(snapshot(model, optimizer), before)
    assert hooks_of(model, optimizer) == 0


@checks("P3")
def test_state_that_no_probe_has_shown_is_refused_before_the_next_step() -> None:
    model = own.square_model()
    optimizer = own.Late(model.parameters(), first=20)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(25):  # the updates at 2, 7, 12, 17 and 22 are no steps of the optimizer
        if optimizer.state[model[2].weight].get("step") == 20:
            break
        train_step(model, optimizer, batch(step))
    optimizer.zero_grad()
    loss_of(model, batch(step)).backward()
    before, count = snapshot(model, optimizer), sparse.step
    with pytest.raises(ValueError, match=r"layer '0\.weight': moment has appeared, of which a copy .* shows nothing"):
        optimizer.step()
    assert same_bits(snapshot(model, optimizer), before)
    assert sparse.step == count


@checks("V3")
def test_options_may_change_after_sparsify() -> None:
    model = own.square_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(10):
        if step == 4:
            optimizer.param_groups[0]["momentum"] = 0.9
        train_step(model, optimizer, batch(step))
        check_outside(model, optimizer, sparse, {"momentum_buffer": 0.0})
    assert optimizer.state[model[2].weight]["momentum_buffer"].any()


def test_the_page_of_optimizers_is_up_to_date() -> None:
    page = optimizers_page.FILE.read_text()
    assert optimizers_page.with_part(page, "torch", optimizers_page.torch_table()) == page, (
        "run python -m tests.torch.optimizers_page"
    )
    assert not re.search("breaks [A-Z]", page)
