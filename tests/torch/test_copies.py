"""Copies of a sparse training are sparse and independent, or refused; averages of the weights can be masked."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import SET, SynFlow
from rigl_core.testing.checks import checks
from tests.torch.helpers import METHODS, batch, hooks_of, mlp, rigl, same_bits, snapshot, train_step


def make(method: str = "RigL") -> tuple[nn.Sequential, torch.optim.Optimizer, SparseTraining]:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    return model, optimizer, sparsify(model, optimizer, METHODS[method])


@checks("P2", "V3")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("copied_after", [0, 3])
def test_a_deep_copy_goes_on_as_the_training_would(method: str, copied_after: int) -> None:
    model, optimizer, sparse = make(method)
    for step in range(copied_after):
        train_step(model, optimizer, batch(step))
    twin, twin_optimizer, twin_sparse = copy.deepcopy((model, optimizer, sparse))
    before = snapshot(model, optimizer), sparse.state_dict()
    for step in range(copied_after, 10):
        train_step(twin, twin_optimizer, batch(step))
    assert same_bits((snapshot(model, optimizer), sparse.state_dict()), before)
    for step in range(copied_after, 10):
        train_step(model, optimizer, batch(step))
    assert same_bits(snapshot(model, optimizer), snapshot(twin, twin_optimizer))
    assert same_bits(sparse.state_dict(), twin_sparse.state_dict())


@checks("P2")
def test_a_copy_between_a_load_under_another_budget_and_the_step_that_follows() -> None:
    model, _, sparse = make()
    other = mlp(seed=1)
    other_optimizer = torch.optim.Adam(other.parameters(), 0.01)
    resumed = sparsify(other, other_optimizer, rigl(0.8))
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(sparse.state_dict(), changed=["sparsity"])
    twin, twin_optimizer, twin_sparse = copy.deepcopy((other, other_optimizer, resumed))
    for one, own in ((other, other_optimizer), (twin, twin_optimizer)):
        train_step(one, own, batch(0))
    assert twin_sparse.table.active == twin_sparse.plan.active
    assert same_bits(twin_sparse.state_dict(), resumed.state_dict())


class Trainer:
    """A user's object that holds everything."""

    def __init__(self) -> None:
        self.model, self.optimizer, self.sparse = make()


@checks("P2")
def test_a_copy_of_an_object_that_holds_all_of_them() -> None:
    twin = copy.deepcopy(Trainer())
    for step in range(4):
        train_step(twin.model, twin.optimizer, batch(step))
    assert twin.sparse.step == 4
    assert not twin.model[0].weight[~twin.sparse.masks["0.weight"]].any()
    twin.sparse.remove()
    assert hooks_of(twin.model, twin.optimizer) == 0


@checks("P2")
def test_a_copy_of_a_training_that_started_from_scores() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scores = {f"{i}.weight": torch.rand_like(model[i].weight) for i in (0, 2)}
    sparse = sparsify(model, optimizer, SynFlow(0.5), scores=scores)
    _, _, twin = copy.deepcopy((model, optimizer, sparse))
    assert same_bits(twin.masks, sparse.masks)


def save(sparse: SparseTraining) -> None:
    torch.save(sparse, io.BytesIO())


COPIES: dict[str, Callable[[SparseTraining], Any]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": pickle.dumps,
    "torch.save": save,
}


@checks("P3")
@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_of_the_handle_alone_is_refused(kind: str) -> None:
    model, optimizer, sparse = make()
    before = snapshot(model, optimizer)
    remedy = r"deepcopy\(\(model, optimizer, sparse\)\)|optimizer\.state_dict\(\)"
    with pytest.raises(TypeError, match=remedy):
        COPIES[kind](sparse)
    assert same_bits(snapshot(model, optimizer), before)


@pytest.mark.parametrize(
    "average", [AveragedModel, lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))]
)
def test_averages_are_masked_by_one_line(average: Callable[[nn.Module], AveragedModel]) -> None:
    model, optimizer, sparse = make()
    averaged = average(model)
    for step in range(9):
        train_step(model, optimizer, batch(step))
        averaged.update_parameters(model)
    mask = sparse.masks["0.weight"]
    weight, bias = (averaged.module.get_parameter(f"0.{kind}") for kind in ("weight", "bias"))
    assert weight[~mask].any()
    before, unchanged = weight.detach().clone(), bias.detach().clone()
    sparse.zero_outside(averaged)
    assert same_bits(weight.detach(), torch.where(mask, before, 0))
    assert same_bits(bias.detach(), unchanged)
    double = copy.deepcopy(averaged.module).double()
    double[0].weight.data.fill_(1.0)
    sparse.zero_outside(double)
    assert torch.equal(double[0].weight != 0, mask)


def test_a_model_with_other_names_is_not_masked() -> None:
    model = mlp()
    sparse = sparsify(model, torch.optim.SGD(model.parameters(), 0.1), SET(0.5, schedule=rigl().schedule))
    other = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 6))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"no module .* '2\.weight'"):
        sparse.zero_outside(other)
    with pytest.raises(TypeError, match="model is a dict"):
        sparse.zero_outside(dict(other.named_parameters()))
    assert same_bits(dict(other.state_dict()), dict(before))
