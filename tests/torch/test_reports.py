"""The plain values of reports, made from masks of this framework."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rigl_backends.torch import sparsify
from rigl_core import History, Lottery, Static, Ticket, Trained
from rigl_core.inspect import density, ever_active, scalars, units
from tests.torch.helpers import SCHEDULE, batch, mlp, rigl, train_step


def test_what_is_logged_of_a_training() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, rigl())
    history = History()
    history.add(sparse.step, sparse.masks)
    ever = before = sparse.masks
    for step in range(SCHEDULE.begin + 1):
        train_step(model, optimizer, batch(step))
    logged = scalars(sparse.masks, before, ever_active(ever, sparse.masks))
    new = {name: int((mask & ~before[name]).sum()) for name, mask in sparse.masks.items()}
    assert new["0.weight"] > 0
    assert logged["moved"] == sum(new.values()) / sum(sparse.plan.active)
    assert logged["moved/0.weight"] == new["0.weight"] / sparse.plan.active[0]
    assert logged["R_s"] == (sum(sparse.plan.active) + sum(new.values())) / sparse.table.total_size
    assert logged["density"] == density(sparse.masks) == sparse.table.total_active / sparse.table.total_size
    assert all(type(value) is float for value in logged.values())
    snapshot = history.add(sparse.step, sparse.masks)
    assert (snapshot.step, snapshot.moved, snapshot.r_s) == (3, logged["moved"], logged["R_s"])


def test_units_of_convolutions_and_recurrent_layers() -> None:
    """An output channel, a unit of one gate, and an input that is read nowhere."""
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.LSTM(5, 7))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, Static(0.0), fused={"1.*": 4})
    masks = sparse.masks
    masks["0.weight"][2] = False
    masks["1.weight_ih_l0"][8], masks["1.weight_ih_l0"][7:14, 3] = False, False
    found = units(sparse.plan.layers, masks)
    assert {name: (each.outputs, each.empty) for name, each in found.items()} == {
        "0.weight": (6, 1),
        "1.weight_ih_l0": (28, 1),
        "1.weight_hh_l0": (28, 0),
    }
    assert (found["1.weight_ih_l0"].inputs, found["1.weight_ih_l0"].unread) == (20, 1)
    assert found["0.weight"].most_in == 1 / 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_parameters_as_they_are_become_scores_of_a_lottery(dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    weights = {name: param for name, param in model.named_parameters() if name.endswith("weight")}
    masks = {name: torch.rand(param.shape) < 0.5 for name, param in weights.items()}
    trained = Trained(weights, masks, copy.deepcopy(model.state_dict()))
    ticket = Lottery(0.5, rounds=1).next(Ticket(), trained)
    assert ticket is not None
    assert ticket.scores is not None
    for name, param in weights.items():
        expected = torch.where(masks[name], param.detach().abs(), -1).to(torch.float64)
        np.testing.assert_array_equal(ticket.scores[name].astype(np.float64), expected.numpy())
