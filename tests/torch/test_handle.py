"""The handle: table and remove(). Copies of a sparsified model are ordinary models."""

from __future__ import annotations

import copy
import gc
import io
import pickle

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rigl_backends.torch import sparsify
from rigl_core import Static
from tests.torch.helpers import batch, hooks_of, loss_of, mlp, rigl, same_bits, snapshot, train_step


def test_table_masks_and_step() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, rigl(0.75, dense=["2.*"]))
    assert list(sparse.masks) == ["0.weight", "2.weight"]
    assert all(mask.dtype == torch.bool for mask in sparse.masks.values())
    assert sparse.masks["2.weight"].all()
    assert torch.equal(sparse.masks["0.weight"], model[0].weight != 0)
    assert sparse.table.active == sparse.plan.active == (48, 96)
    assert "0.weight  16x12   0.2500      48    144" in str(sparse.table)
    assert sparse.step == 0
    train_step(model, optimizer, batch(0))
    assert sparse.step == 1


def test_remove_takes_every_hook_off_and_the_optimizer_can_be_sparsified_again() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparse = sparsify(model, optimizer, rigl())
    assert hooks_of(model, optimizer) == 4
    for step in range(8):
        train_step(model, optimizer, batch(step))
    before, masks = snapshot(model, optimizer), sparse.masks
    sparse.remove()
    sparse.remove()
    assert hooks_of(model, optimizer) == 0
    assert same_bits(snapshot(model, optimizer), before)
    # From here on it is a plain training that starts at a sparse point.
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    for step in range(8, 12):
        train_step(model, optimizer, batch(step))
        train_step(twin, twin_optimizer, batch(step))
    assert same_bits(snapshot(model, optimizer), snapshot(twin, twin_optimizer))
    assert model[0].weight[~masks["0.weight"]].any()
    assert sparse.step == 8
    again = sparsify(model, optimizer, Static(0.9, seed=3))
    momentum = optimizer.state[model[0].weight]["momentum_buffer"]
    assert not momentum[~again.masks["0.weight"]].any()
    assert not model[0].weight[~again.masks["0.weight"]].any()


def test_the_handle_need_not_be_kept() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsify(model, optimizer, rigl())
    gc.collect(1)  # what is as young as the handle
    first = model[0].weight != 0
    for step in range(8):
        train_step(model, optimizer, batch(step))
    assert int((model[0].weight != 0).sum()) <= int(first.sum())
    assert not torch.equal(model[0].weight != 0, first)


def test_copies_of_the_model_and_the_optimizer_are_plain() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    sparse = sparsify(model, optimizer, rigl())
    train_step(model, optimizer, batch(0))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
        AveragedModel(model).module,
    ]
    for twin in copies:
        assert same_bits(dict(twin.state_dict()), dict(model.state_dict()))
        loss_of(twin, batch(1)).backward()
        assert twin[0].weight.grad[~sparse.masks["0.weight"]].any()
        assert hooks_of(twin, copy.deepcopy(optimizer)) == 0
    assert sparse.step == 1
    assert sparse.masks["0.weight"].sum() == sparse.plan.active[0]


def test_dense_parameters_and_other_optimizers_go_their_own_way() -> None:
    """An update replaces the step of its own optimizer only."""
    model = mlp()
    norm = nn.LayerNorm(12)
    whole = nn.Sequential(norm, model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    other = torch.optim.SGD(norm.parameters(), 0.1)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(3):
        before = norm.weight.detach().clone(), model[0].bias.detach().clone()
        other.zero_grad()
        train_step(whole, optimizer, batch(step))
        other.step()
        assert not same_bits(norm.weight.detach(), before[0])
        assert same_bits(model[0].bias.detach(), before[1]) == (step == 2)
    assert sparse.step == 3
