"""Which recipes and layers are held as active weights (A3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rigl_core import DNS, DNW, DSR, SNFS, RigL, SparsityWarning, SRigL, Uniform, UpdateSchedule, make_plan
from rigl_core.adapter import Layer, active_layers
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=9, every=3)
LAYERS = [
    Layer("fc1", (300, 400), (1,), (0,)),
    Layer("conv", (300, 40, 3, 3), (1,), (0,)),
    Layer("head", (10, 300), (1,), (0,)),
    Layer("half", (300, 400), (1,), (0,)),
]
RECIPE = RigL(0.9, schedule=SCHEDULE, distribution=Uniform(first_dense=False))
HALF = {"half": "is float16, and the kernels multiply float32"}


@checks("A3", "P3")
@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (SNFS(0.9, schedule=SCHEDULE), "SNFS reads a momentum of the dense gradient at every step"),
        (DNW(0.9, schedule=SCHEDULE), "DNW lets inactive weights learn"),
        (DNS(0.9, schedule=SCHEDULE), "DNS lets inactive weights learn"),
        (DSR(0.9, schedule=SCHEDULE), "DSR chooses from all layers together"),
        (SRigL(0.9, schedule=SCHEDULE), "SRigL chooses connections in groups"),
        (RigL(0.9, schedule=SCHEDULE, scope="global"), "RigL chooses from all layers together"),
    ],
    ids=lambda own: getattr(own, "method", ""),
)
def test_recipes_that_are_refused(recipe: Any, reason: str) -> None:
    plan = make_plan(recipe, LAYERS)
    with pytest.raises(ValueError, match=f"storage is 'active', but {reason}.*use storage='masks'"):
        active_layers(plan, "active", {})


@checks("A3", "P3")
def test_layers_that_cannot_or_need_not_keep_their_masks_and_are_named() -> None:
    plan = make_plan(RECIPE, LAYERS)
    with pytest.warns(SparsityWarning) as told:
        assert active_layers(plan, "active", HALF) == (0,)
    (message,) = (str(one.message) for one in told)
    assert "'conv' is not a matrix" in message
    assert "'head' has 3,000 connections, and products pay from 65,536 on" in message
    assert "'half' is float16" in message


@checks("A3", "P3")
@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ({"conv": "active"}, "'conv' is not a matrix: use 'masks' for them"),
        ({"half": "active"}, "'half' is float16"),
        ({"fc9": "active"}, "storage holds the pattern 'fc9', which matches no layer"),
        ({"fc1": "sparse"}, "storage is 'sparse': use 'masks', 'active'"),
        ("sparse", "storage is 'sparse': use 'masks', 'active'"),
        (None, "storage is None: use 'masks', 'active'"),
    ],
)
def test_storages_that_are_refused(storage: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        active_layers(make_plan(RECIPE, LAYERS), storage, HALF)


def test_patterns_choose_layer_by_layer() -> None:
    """Also a layer that is too small to pay; the first pattern that fits decides."""
    plan = make_plan(RECIPE, LAYERS)
    assert active_layers(plan, {"conv": "masks", "ha*f": "masks", "h*": "active", "f*": "active"}, HALF) == (0, 2)
    assert active_layers(plan, "masks", HALF) == active_layers(plan, {"*": "masks"}, HALF) == ()


@checks("A3")
def test_no_layer_that_can_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'conv' is not a matrix.*'head' has 3,000 connections"):
        active_layers(make_plan(RECIPE, LAYERS[1:3]), "active", {})


@checks("A3")
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Layer("conv", (300, 40, 3, 3), (1,), (0,)), None),
        (Layer("conv", (3, 3, 40, 300), (2,), (3,)), None),
        (Layer("conv", (300, 20, 3, 3), (1,), (0,), groups=2), None),
        (Layer("conv", (40, 300, 3, 3), (0,), (1,)), "has no known axis of inputs"),
        (Layer("conv", (300, 40, 3), (1,), (0,)), "is not a matrix or the kernel of a two-dimensional convolution"),
        (Layer("conv", (300, 1, 3, 3), (1,), (0,), groups=300, depthwise=True), "is depthwise"),
        (Layer("conv", (3, 2, 300, 300), (1,), (0,)), "has a kernel of more than 65,536 positions"),
    ],
)
def test_convolutions_where_an_adapter_has_them(layer: Layer, reason: str | None) -> None:
    plan = make_plan(RECIPE, [LAYERS[0], layer])
    storage: Any = {"*": "active"}
    if reason is None:
        assert active_layers(plan, storage, {}, convolutions=True) == (0, 1)
    else:
        with pytest.raises(ValueError, match=f"'conv' {reason}"):
            active_layers(plan, storage, {}, convolutions=True)
    with pytest.raises(ValueError, match=r"'conv' is (not a matrix|depthwise)"):
        active_layers(plan, storage, {})


@checks("A3", "P3")
@pytest.mark.parametrize(
    ("shape", "groups", "sparsity", "reason"),
    [
        ((128, 128, 3, 3), 1, 0.8, None),
        ((128, 128, 3, 3), 1, 0.78, "has a density of 0.22, and products pay up to 0.2"),
        ((128, 100, 3, 3), 1, 0.9, "has 115,200 connections, and products pay from 131,072 on"),
        ((256, 64, 3, 3), 4, 0.9, "has 36,864 connections a group, and products pay from 131,072 on"),
        ((256, 512, 1, 1), 1, 0.9, None),
        ((256, 256, 1, 1), 1, 0.9, "has 65,536 connections, and products pay from 131,072 on"),
    ],
)
def test_convolutions_that_pay(shape: tuple[int, ...], groups: int, sparsity: float, reason: str | None) -> None:
    own = replace(RECIPE, sparsity=sparsity)
    plan = make_plan(own, [Layer("conv", shape, (1,), (0,), groups=groups)])
    if reason is None:
        assert active_layers(plan, "active", {}, convolutions=True) == (0,)
    else:
        with pytest.raises(ValueError, match=reason):
            active_layers(plan, "active", {}, convolutions=True)
