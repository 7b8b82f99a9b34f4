"""Layers, plans and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from rigl_core import ErdosRenyi, Layer, PerLayer, Recipe, RigL, Static, UpdateSchedule, make_plan, specs
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=1500, every=50)


def test_fans_of_every_kind_of_layer() -> None:
    convolution = Layer("conv", (8, 4, 3, 3), in_axes=(1,), out_axes=(0,))
    assert (convolution.fan_in, convolution.fan_out, convolution.kernel_axes) == (36, 72, (2, 3))
    grouped = Layer("grouped", (8, 2, 3, 3), in_axes=(1,), out_axes=(0,), groups=2)
    assert (grouped.fan_in, grouped.fan_out) == (18, 36)
    transposed = Layer("transposed", (4, 4, 3, 3), in_axes=(0,), out_axes=(1,), groups=2, grouped_axes="out")
    assert (transposed.fan_in, transposed.fan_out) == (18, 36)
    attention = Layer("attention", (16, 2, 8), in_axes=(0,), out_axes=(1, 2))
    assert (attention.n_in, attention.n_out, attention.size) == (16, 16, 256)


@checks("P3")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name is empty"),
        ({"shape": ()}, r"shape of layer 'fc' is \(\): a scalar"),
        ({"shape": (3, -1)}, "sizes cannot be negative"),
        ({"shape": (2**16, 2**15)}, r"fewer than 2\*\*31 weights"),
        ({"in_axes": (2,)}, "must be different axes from 0 to 1"),
        ({"in_axes": (0,), "out_axes": (0,)}, "must be different axes"),
        ({"groups": 0}, "groups of layer 'fc' is 0"),
        ({"grouped_axes": "both"}, "use 'in' or 'out'"),
    ],
)
def test_bad_layers_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layer(**{"name": "fc", "shape": (3, 2), **options})


@checks("P3")
@pytest.mark.parametrize(
    ("recipe", "layers", "message"),
    [
        (Static(0.5), [], "layers is empty: the model has nothing to sparsify"),
        (Static(0.5), [Layer("a", (2,)), Layer("a", (3,))], "layers holds the name 'a' more than once"),
        (Static(0.5, dense=["b*"]), [Layer("a", (2, 2))], r"dense holds the pattern 'b\*', which matches no layer"),
        (Static(0.5, dense=["*"]), [Layer("a", (2, 2))], "nothing to sparsify: every layer is pinned"),
        (Static(), [Layer("a", (2, 2))], "sparsity is missing, and layer 'a' has none of its own"),
        (Static(0.5, distribution=ErdosRenyi()), [Layer("a", (2, 2))], "in_axes of layer 'a' is unknown"),
        (Static(distribution=PerLayer({"a": 0.5})), [Layer("a", (2,)), Layer("b", (2,))], "says nothing of layer 'b'"),
        (Static(distribution=PerLayer({"a": 0.5, "x": 0})), [Layer("a", (2,))], "the pattern 'x', which matches no"),
    ],
)
def test_recipes_that_do_not_fit_are_refused_by_name(recipe: Recipe, layers: list[Layer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(recipe, layers)


def test_the_table_says_what_the_plan_is() -> None:
    plan = make_plan(RigL(0.8, schedule=SCHEDULE), specs.resnet50())
    lines = str(plan).splitlines()
    assert lines[0] == "RigL, sparsity 0.8, erk, epsilon = 99.5612, 54 layers, 8 of them dense"
    assert lines[1].split() == ["layer", "shape", "density", "active", "zeros"]
    assert lines[2].split() == ["conv1", "64x3x7x7", "0.8572", "8,065", "1,343"]
    assert lines[-1].split() == ["total", "0.2000", "5,100,582", "20,402,330"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_the_drop_counts_cannot_be_changed() -> None:
    plan = make_plan(RigL(0.8, schedule=SCHEDULE), specs.mlp(64, 300, 100, 10))
    assert plan.drop_counts.shape == (30, 3)
    with pytest.raises(ValueError, match="read-only"):
        plan.drop_counts[0, 0] = 1


@dataclass(frozen=True)
class HalfOfEach:
    """A user's own distribution."""

    kind = "half"

    def pinned(self, layers: Sequence[Layer]) -> dict[str, float]:
        return {}

    def densities(self, layers: Sequence[Layer], active: int) -> list[Fraction]:
        return [Fraction(1, 2)] * len(layers)


def test_distributions_of_ones_own() -> None:
    plan = make_plan(Static(0.5, distribution=HalfOfEach()), specs.mlp(4, 6, 2))
    assert plan.active == (12, 6)
    with pytest.raises(ValueError, match=r"shares sum to 18\.0, which is not the budget of 4"):
        make_plan(Static(0.9, distribution=HalfOfEach()), specs.mlp(4, 6, 2))
