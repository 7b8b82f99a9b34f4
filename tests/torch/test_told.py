"""Layers that are left out are told, and so is what a model has when no layer is found."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from rigl_backends.torch import choose_layers, plan, sparsify
from rigl_core import NM, RigL, SparsityWarning, Static
from tests.torch.helpers import SCHEDULE, rigl

RECIPE = Static(0.5)
Change = Callable[[nn.Module], object]


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 6))


def prune_twice(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.2)
    prune.random_unstructured(layer, "weight", 0.2)


def old_weight_norm(layer: nn.Module, name: str = "weight") -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        weight_norm(layer, name)


COMPUTED: dict[str, tuple[Change, Change, str, list[str]]] = {
    "prune": (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: prune.remove(layer, "weight"),
        r"prune\.remove\(module, 'weight'\)",
        ["0.weight_orig"],
    ),
    "prune twice": (prune_twice, lambda layer: prune.remove(layer, "weight"), "prune.remove", ["0.weight_orig"]),
    "weight norm": (
        old_weight_norm,
        remove_weight_norm,
        r"remove_weight_norm\(module, 'weight'\)",
        ["0.weight_g", "0.weight_v"],
    ),
    "spectral norm": (
        spectral_norm,
        remove_spectral_norm,
        r"remove_spectral_norm\(module, 'weight'\)",
        ["0.weight_orig"],
    ),
    "parametrization": (
        parametrizations.weight_norm,
        lambda layer: remove_parametrizations(layer, "weight"),
        r"remove_parametrizations\(module, 'weight'\)",
        ["0.parametrizations.weight.original0", "0.parametrizations.weight.original1"],
    ),
}


@pytest.mark.parametrize("tool", COMPUTED)
def test_a_weight_that_is_computed_is_named_with_the_remedy(tool: str) -> None:
    change, remove, remedy, sources = COMPUTED[tool]
    model = mlp()
    change(model[0])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.warns(SparsityWarning, match=rf"'0\.weight' cannot be sparse.*{remedy}") as told:
        assert list(sparsify(model, optimizer, RECIPE).masks) == ["2.weight"]
    assert f"exclude={sources}" in str(told[0].message)
    remove(model[0])
    assert [layer.name for layer in plan(model, RECIPE).layers] == ["0.weight", "2.weight"]


@pytest.mark.parametrize("tool", COMPUTED)
def test_who_names_what_a_weight_is_computed_from_is_not_warned(tool: str) -> None:
    change, _, _, sources = COMPUTED[tool]
    model = mlp()
    change(model[0])
    layers = choose_layers(model)
    plan(model, RECIPE, exclude=sources[:1])
    plan(model, RECIPE, layers=layers)
    assert sources[-1] in [layer.name for layer in plan(model, RECIPE, include=sources[-1:]).layers]


def test_what_would_stay_dense_anyway_is_not_told() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 60))
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.l1_unstructured(model[2], "bias", 0.5)
    assert [layer.name for layer in plan(model, RECIPE).layers] == ["2.weight"]


def test_computed_weights_of_recurrent_layers_are_told() -> None:
    model = nn.Sequential(nn.LSTM(6, 8), nn.Linear(8, 60))
    old_weight_norm(model[0], "weight_hh_l0")
    with pytest.warns(SparsityWarning, match=r"'0\.weight_hh_l0' cannot be sparse"):
        assert [layer.name for layer in plan(model, RECIPE).layers] == ["0.weight_ih_l0", "1.weight"]


class Conv1D(nn.Module):
    """As in transformers.pytorch_utils."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class Derived(Conv1D):
    pass


def test_conv1d_of_transformers_is_a_linear_layer_stored_the_other_way() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(24, 8), nn.ReLU(), Derived(4, 24))
    layers = choose_layers(model)
    assert [(layer.name, layer.in_axes, layer.out_axes) for layer in layers] == [
        ("0.weight", (0,), (1,)),
        ("2.weight", (0,), (1,)),
    ]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, RigL(schedule=SCHEDULE, structure=NM(2, 4)))
    for _ in range(8):
        optimizer.zero_grad()
        model(torch.randn(5, 8)).square().sum().backward()
        optimizer.step()
    assert (sparse.masks["0.weight"].reshape(2, 4, 24).sum(1) == 2).all()


def test_another_conv1d_is_left_alone() -> None:
    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4, 3))

    assert choose_layers(nn.Sequential(Conv1D(), nn.Linear(3, 4)))[0].name == "1.weight"


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(30, 40))


def test_a_model_without_layers_is_told_what_it_has() -> None:
    model = nn.Sequential(Mine(), nn.LayerNorm(40))
    message = (
        r"layers is empty: the model has nothing to sparsify\. It has '0\.kernel' \(30, 40\) of Mine, "
        r"'1\.weight' \(40,\) of LayerNorm, '1\.bias' \(40,\) of LayerNorm\. Name .* in include, .* in axes"
    )
    with pytest.raises(ValueError, match=message):
        sparsify(model, torch.optim.SGD(model.parameters(), 0.1), rigl())
    with pytest.raises(ValueError, match="It has no parameters"):
        plan(nn.ReLU(), RECIPE)
    with pytest.raises(
        ValueError, match=r"'6\.kernel' \(30, 40\) of Mine, '7\.kernel' \(30, 40\) of Mine and 2 more\. Name"
    ):
        plan(nn.Sequential(*(Mine() for _ in range(10))), RECIPE)


def test_layers_that_are_a_small_part_of_their_model_are_told() -> None:
    model = nn.Sequential(Mine(), nn.Linear(4, 5))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    message = r"the layers hold 20 of the model's 1,225 parameters; .* '0\.kernel' with 1,200"
    with pytest.warns(SparsityWarning, match=message):
        sparsify(model, optimizer, RECIPE).remove()
    sparsify(model, optimizer, RECIPE, layers=choose_layers(model)).remove()
    sparsify(model, optimizer, RECIPE, include=["0.kernel"])
