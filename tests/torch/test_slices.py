"""Parts that PyTorch's modules fuse along an axis, grouped convolutions, and parameters that are stacks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from rigl_backends.torch import describe, plan, sparsify
from rigl_core import Constant, RigL, UpdateSchedule
from rigl_core.testing.checks import checks

RECIPE = RigL(0.7, schedule=UpdateSchedule(end=9, every=2), drop_fraction=Constant(0.5))
SLICES: dict[str, Any] = {
    "include": ["experts"],
    "axes": {"experts": ((1,), (2,))},
    "stacked": {"experts": 0},
    "fused": {"*in_proj_weight": 3, "lstm.weight*": 4, "gru.weight*": 3, "conv.weight": 2, "up.weight": (0, 4)},
}


class Model(nn.Module):
    """Fused projections and gates, a grouped convolution, its transposed version, and a stack of experts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.up = nn.Conv1d(8, 8, 3, groups=2, padding=1), nn.ConvTranspose1d(8, 8, 1, groups=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm, self.gru = nn.LSTM(8, 6, batch_first=True), nn.GRU(6, 5, batch_first=True)
        self.experts = nn.Parameter(torch.randn(4, 5, 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.conv(x.mT)).mT
        x, _ = self.attention(x, x, x)
        x, _ = self.gru(self.lstm(x)[0])
        return torch.einsum("bti,eio->beto", x, self.experts)


def trained(model: Model, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(step))
        (model(x) - 1).square().mean().backward()
        optimizer.step()


def parts(name: str, mask: torch.Tensor) -> list[int]:
    """The active connections of each slice, which all lie along the first axis here."""
    slices = {"experts": 4, "conv.weight": 2, "up.weight": 4, "attention.in_proj_weight": 3}
    slices |= {f"lstm.weight_{side}_l0": 4 for side in ("ih", "hh")} | {f"gru.weight_{s}_l0": 3 for s in ("ih", "hh")}
    return [int(part.sum()) for part in mask.chunk(slices.get(name, 1))]


@checks("B12", "T7", "P2")
def test_fused_parts_and_stacks_keep_equal_numbers_and_resume() -> None:
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    planned = plan(model, RECIPE, **SLICES)
    sparse = sparsify(model, optimizer, RECIPE, **SLICES)
    first = {name: mask.clone() for name, mask in sparse.masks.items()}
    trained(model, optimizer, range(4))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    trained(model, optimizer, range(4, 9))
    for (name, mask), layer, active in zip(sparse.masks.items(), planned.layers, planned.active, strict=True):
        assert parts(name, mask) == [active // layer.slices] * layer.slices, name
    assert any((mask != first[name]).any() for name, mask in sparse.masks.items())
    again = Model()
    other = torch.optim.Adam(again.parameters(), 1e-2)
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    resumed = sparsify(again, other, RECIPE, **SLICES)
    trained(again, other, range(4, 9))
    assert all((mask == sparse.masks[name]).all() for name, mask in resumed.masks.items())
    assert all((own == model.get_parameter(name)).all() for name, own in again.named_parameters())


@checks("B12", "B8")
def test_groups_of_a_convolution_are_slices_of_one_group() -> None:
    layers = {layer.name: layer for layer in plan(Model(), RECIPE, **SLICES).layers}
    assert (layers["conv.weight"].one_slice.shape, layers["conv.weight"].one_slice.groups) == ((4, 4, 3), 1)
    assert (layers["up.weight"].one_slice.shape, layers["up.weight"].one_slice.groups) == ((2, 2, 1), 1)


@checks("P2", "P3")
def test_a_state_without_the_slices_is_refused() -> None:
    states = []
    for slices in ({"include": ["experts"]}, SLICES):
        model = Model()
        states.append(sparsify(model, torch.optim.SGD(model.parameters(), 0.1), RECIPE, **slices))
    before = {name: mask.clone() for name, mask in states[1].masks.items()}
    with pytest.raises(ValueError, match="in the slices of layer 'experts': they must have equal numbers"):
        states[1].load_state_dict(states[0].state_dict())
    assert all((mask == before[name]).all() for name, mask in states[1].masks.items())


def test_describe_knows_the_slices() -> None:
    network = describe(Model(), torch.ones(3, 5, 8), examples=3, **SLICES)
    assert network.layers == plan(Model(), RECIPE, **SLICES).layers
    assert network.positions["experts"] == network.positions["attention.in_proj_weight"] == 5
