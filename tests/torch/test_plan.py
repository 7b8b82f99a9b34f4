"""`plan` says what a recipe would do to a model, and changes nothing; also with layers and axes that a user gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

import rigl_backends.torch
from rigl_backends.torch import choose_layers, describe, plan, sparsify
from rigl_core import NM, ErdosRenyi, GraSP, Layer, RigL, Static, Uniform
from rigl_core.testing.checks import checks
from tests.torch.helpers import METHODS, SCHEDULE, batch, hooks_of, mlp, rigl, same_bits, snapshot, train_step


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "include": {"include": ["0.bias"]},
    "exclude": {"exclude": ["0.*"], "include": ["2.bias"]},
    "axes": {"axes": {"2.weight": ((0,), (1,))}},
    "layers": {"layers": [Layer("2.weight", (6, 16)), Layer("0.bias", (16,))]},
}


@checks("P3")
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("method", METHODS)
def test_the_plan_is_that_of_sparsify_and_changes_nothing(method: str, choice: str) -> None:
    model = mlp()
    optimizer = sgd(model)
    train_step(model, optimizer, batch(0))
    before, random_state = snapshot(model, optimizer), torch.get_rng_state()
    planned = plan(model, METHODS[method], **CHOICES[choice])
    assert same_bits(snapshot(model, optimizer), before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert hooks_of(model, optimizer) == 0
    sparse = sparsify(model, optimizer, METHODS[method], **CHOICES[choice])
    for made in (planned, plan(model, METHODS[method], **CHOICES[choice])):  # of what is sparse already, too
        assert made == sparse.plan
        for own, other in zip(made.tables, sparse.plan.tables, strict=True):
            assert own.tolist() == other.tolist()
    assert list(sparse.masks) == [layer.name for layer in planned.layers]


def test_a_recipe_that_asks_for_scores_is_planned_without() -> None:
    assert plan(mlp(), GraSP(0.5)).layers == tuple(choose_layers(mlp()))


def test_chosen_layers_can_be_given_back_changed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    layers = choose_layers(model)
    assert all(type(layer) is Layer for layer in layers)
    assert plan(model, rigl(), layers=layers) == plan(model, rigl())
    only = sparsify(model, sgd(model), rigl(), layers=layers[1:])
    assert list(only.masks) == ["2.weight"]
    assert model[0].weight.all()
    x, labels = torch.randn(8, 3, 4, 4), torch.arange(8) % 5
    for _ in range(3):
        model.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
    assert not model[2].weight.grad[~only.masks["2.weight"]].any()
    assert model[0].weight.grad.all()


def test_axes_go_before_what_the_modules_tell() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.Bilinear(3, 4, 5))
    axes = {"1.weight": ((1, 2), (0,)), "*.weight": ((0,), (1,))}
    chosen = choose_layers(model, include=["1.weight"], axes=axes)
    assert [(layer.in_axes, layer.out_axes) for layer in chosen] == [((0,), (1,)), ((1, 2), (0,))]
    network = describe(model[0], torch.ones(2, 8), axes={"weight": ((0,), (1,))}, examples=2)
    assert [(layer.in_axes, layer.out_axes) for layer in network] == [((0,), (1,))]
    er = Static(0.5, distribution=ErdosRenyi())
    assert plan(model, er, include=["1.weight"], axes=axes).layers == tuple(chosen)


def test_a_structure_follows_the_given_axes() -> None:
    model = nn.Linear(8, 8)
    recipe = RigL(schedule=SCHEDULE, structure=NM(2, 4), distribution=Uniform(first_dense=False))
    mask = sparsify(model, sgd(model), recipe, axes={"weight": ((0,), (1,))}).masks["weight"]
    assert (mask.T.reshape(8, 2, 4).sum(-1) == 2).all()
    assert not (mask.reshape(8, 2, 4).sum(-1) == 2).all()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 8), nn.Linear(8, 8)
        self.decoder.weight = self.encoder.weight
        self.embedding = nn.Embedding(9, 4, sparse=True)
        self.lazy = nn.LazyLinear(3)


def test_a_tied_layer_goes_by_any_of_its_names() -> None:
    model = Tied()
    given = Layer("decoder.weight", (8, 8))
    sparse = sparsify(model, sgd(model.decoder), rigl(), layers=[given])
    assert sparse.plan.layers == (given,)
    assert torch.equal(model.encoder.weight != 0, sparse.masks["decoder.weight"])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "include too": ({"layers": [], "include": ["*"]}, "leave out include and exclude and axes"),
    "exclude too": ({"layers": [], "exclude": ["*"]}, "layers already says what to sparsify"),
    "axes too": ({"layers": [], "axes": {"*": ((0,), (1,))}}, "layers already says what to sparsify"),
    "no layers": ({"layers": []}, "layers is empty"),
    "no such name": ({"layers": [Layer("head", (8, 8))]}, r"layers names 'head' of shape \(8, 8\)"),
    "another shape": (
        {"layers": [Layer("encoder.weight", (8, 9))]},
        r"layers names 'encoder\.weight' of shape \(8, 9\)",
    ),
    "lazy": ({"layers": [Layer("lazy.weight", (3, 8))]}, r"layers names 'lazy\.weight'"),
    "twice": ({"layers": [Layer("encoder.weight", (8, 8))] * 2}, "layers holds the name 'encoder.weight' more than"),
    "twice by two names": (
        {"layers": [Layer("encoder.weight", (8, 8)), Layer("decoder.weight", (8, 8))]},
        r"layers 'encoder\.weight' and 'decoder\.weight' are one tied parameter: name it once",
    ),
    "sparse gradients": (
        {"layers": [Layer("embedding.weight", (9, 4))]},
        r"layer 'embedding\.weight' is an embedding with sparse gradient tensors",
    ),
    "axes of nothing": (
        {"exclude": ["lazy.*"], "axes": {"fc.*": ((0,), (1,))}},
        r"axes holds the pattern 'fc\.\*', which matches no layer",
    ),
    "axes that do not fit": (
        {"exclude": ["lazy.*"], "axes": {"encoder.*": ((0,), (2,))}},
        r"in_axes=\(0,\) and out_axes=\(2,\) of layer",
    ),
}


@checks("P3")
@pytest.mark.parametrize("case", WRONG)
def test_choices_that_do_not_fit_change_nothing(case: str) -> None:
    choice, message = WRONG[case]
    model = Tied()
    watched, optimizer = model.encoder, sgd(model.encoder)
    before = snapshot(watched, optimizer)
    calls: Sequence[Callable[[], object]] = (
        lambda: plan(model, rigl(), **choice),
        lambda: sparsify(model, optimizer, rigl(), **choice),
    )
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
        assert same_bits(snapshot(watched, optimizer), before)
        assert hooks_of(watched, optimizer) == 0


@checks("P3")
def test_what_sparsify_would_refuse_is_not_planned() -> None:
    frozen = mlp()
    frozen[2].weight.requires_grad_(False)
    cases: list[tuple[Any, Any, str]] = [
        (frozen, rigl(), r"layer '2\.weight' is frozen"),
        (mlp(), None, "recipe is None: it must be a Recipe"),
        ([], rigl(), r"model is a list: it must be a torch\.nn\.Module"),
    ]
    for model, recipe, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            plan(model, recipe)
    with pytest.raises(TypeError, match=r"model is a list: it must be a torch\.nn\.Module"):
        choose_layers([])  # type: ignore[arg-type]


def test_a_model_without_values_has_the_same_plan() -> None:
    with torch.device("meta"):
        unmade = mlp()
    assert unmade[0].weight.is_meta
    assert plan(unmade, rigl()) == plan(mlp(), rigl())


def test_all_that_is_public_is_listed() -> None:
    for name in rigl_backends.torch.__all__:
        assert hasattr(rigl_backends.torch, name)
    assert {"plan", "choose_layers", "describe", "torch_namespace"} <= set(rigl_backends.torch.__all__)
