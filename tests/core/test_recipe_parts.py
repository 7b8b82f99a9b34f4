"""Recipes as plain data: every method, the user's own parts, and data that names no known part."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest

import rigl_core as rigl
from rigl_core import Criterion, Layer, Recipe, UpdateSchedule, make_plan
from rigl_core.arrays.namespace import Namespace
from rigl_core.parts.criteria import CRITERIA
from rigl_core.parts.structures import Arrangement
from rigl_core.testing.checks import checks
from rigl_core.testing.method_trainings import MOVING, STATIC

SCHEDULE = UpdateSchedule(end=10, every=2)


def assert_survives(recipe: Recipe, parts: Sequence[Any] = ()) -> None:
    for again in (
        Recipe.from_json(recipe.to_json(), parts),
        Recipe.from_dict(recipe.to_dict(), parts),
        Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())), iter(parts)),
    ):
        assert again == recipe
        assert hash(again) == hash(recipe)
        assert again.to_json() == recipe.to_json()


@pytest.mark.parametrize("method", [*MOVING, *STATIC])
def test_every_method_survives_json(method: str) -> None:
    assert_survives({**MOVING, **STATIC}[method](0.75, SCHEDULE))


def test_every_field_survives_json() -> None:
    recipe = Recipe(
        0.75,
        "mine",
        rigl.Uniform(first_dense=False),
        SCHEDULE,
        rigl.InversePower(0.25, 2.5),
        rigl.magnitude_and_gradient(0.3),
        rigl.MOMENTUM,
        rigl.MAGNITUDE,
        rigl.CubicRamp(0.125, 2),
        momentum=0.625,
        l1=1e-5,
        noise=0.125,
        regrown="reset",
        grown=rigl.SmallRandom(0.5),
        on_update="after",
        seed=-(2**70),
        dense=["a", "b*"],
        layer_sparsity={"c": 0.3},
        compensate=True,
    )
    assert_survives(recipe)
    assert_survives(rigl.RigL(schedule=SCHEDULE, structure=rigl.NM(3, 8), grown=rigl.GradientStep(0.3)))
    assert_survives(Recipe(0.5, schedule=SCHEDULE, scope="global", redistribution="survivors", grow=rigl.RANDOM))
    assert_survives(Recipe(0.5, schedule=SCHEDULE, shadow=True, on_update="after", structure=rigl.Blocks(8)))


@dataclass(frozen=True)
class Shares:
    """Densities in proportion to given numbers."""

    kind: ClassVar[str] = "shares"
    numbers: tuple[int, ...] = (1, 2)

    def pinned(self, layers: Sequence[Layer]) -> Mapping[str, float]:
        return {}

    def densities(self, layers: Sequence[Layer], active: int) -> list[Fraction]:
        pairs = zip(layers, self.numbers, strict=True)
        return [Fraction(active * n, sum(self.numbers) * layer.size) for layer, n in pairs]


@dataclass(frozen=True)
class Steps:
    """A drop fraction with the values of ``levels``, pairs of start and value; also a ramp."""

    kind: ClassVar[str] = "steps"
    levels: tuple[tuple[float, float], ...] = ((0.0, 0.5), (0.5, 0.25))

    def fraction(self, progress: float) -> float:
        return [level for start, level in self.levels if start <= progress][-1]

    def sparsity(self, progress: float, final: float) -> float:
        return final if progress == 1 else final / 2


class Halves:
    """A class that is no dataclass and has no parameters."""

    kind = "halves"
    reads = ("initial",)
    sparsity = None

    def values(self, connections: Any, xp: Namespace) -> Any:
        return connections.initial

    def arrangement(self, layer: Layer) -> Arrangement:
        return Arrangement(layer.shape, (0, 1), layer.shape[0], layer.shape[1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Halves)

    def __hash__(self) -> int:
        return 1


def twice(share: float) -> Criterion:
    return Criterion("twice", _double, parameter=share)


def _double(connections: Any, xp: Namespace) -> Any:
    return xp.abs(connections.weight) * 2


@pytest.mark.parametrize(
    ("parameter", "own"),
    [
        ("distribution", Shares((3, 1))),
        ("drop_fraction", Steps(((0.0, 1.0),))),
        ("ramp", Steps()),
        ("structure", Halves()),
        ("grown", Halves()),
    ],
)
def test_parts_of_ones_own(parameter: str, own: Any) -> None:
    """``parts`` may hold their classes, or objects of these."""
    recipe = Recipe(0.5, schedule=SCHEDULE, **{parameter: own})
    assert_survives(recipe, [type(own)])
    assert_survives(recipe, [own])
    plan = make_plan(recipe, [Layer("a", (4, 4)), Layer("b", (4, 4))])
    assert plan.active == ((12, 4) if parameter == "distribution" else (8, 8))
    with pytest.raises(ValueError, match=rf"{parameter} names the unknown '{own.kind}'.*parts=\[\.\.\.\]"):
        Recipe.from_json(recipe.to_json())


@pytest.mark.parametrize(
    ("criterion", "parts"),
    [
        (Criterion("double", _double), [Criterion("double", _double)]),
        (twice(0.25), [twice(0.25)]),
        (twice(0.25), [twice]),
    ],
    ids=["by name", "with its number", "by what makes it"],
)
@pytest.mark.parametrize("parameter", ["drop", "grow", "initial"])
def test_criteria_of_ones_own(parameter: str, criterion: Criterion, parts: list[Any]) -> None:
    assert_survives(Recipe(0.5, **{parameter: criterion}), parts)


@checks("P3")
@pytest.mark.parametrize(
    ("data", "parts", "message"),
    [
        ({"drop": "magnitude_and_gradient"}, [], "drop names 'magnitude_and_gradient', which has a parameter: use"),
        ({"grow": {"name": "magnitude", "parameter": 0.3}}, [], "grow names 'magnitude' with the parameter 0.3, and"),
        ({"grow": {"name": "twice", "parameter": 0.3}}, [twice(0.2)], "with the parameter 0.3, and there is one with"),
        ({"drop": {"name": "magnitude"}}, [], "it must be a name, or a mapping of 'name' and 'parameter'"),
        ({"drop": {"name": "magnitude_and_gradient", "parameter": -1}}, [], "share is -1: it must be at least 0"),
        ({"drop": {"name": "magnitude_and_gradient", "parameter": "x"}}, [], "share is 'x': it must be a number"),
        ({"drop": ["magnitude"]}, [], r"drop names the unknown \['magnitude'\]"),
        ({"grown": {"kind": "halves", "scale": 2}}, [Halves], "grown has the unknown key 'scale'"),
        ({"ramp": {"kind": "linear"}}, [], "ramp names the unknown 'linear': known are cubic"),
        ({"ramp": {"kind": "cubic", "initial": 1}}, [], "initial is 1: it must be in"),
        ({"structure": "2:4"}, [], "structure names the unknown '2:4': known are unstructured"),
        ({"structure": 24}, [], "structure is 24: it must be a name, or a mapping with the key 'kind'"),
        ({"structure": {"kind": "n_of_m", "n": 5}}, [], "n is 5: of 4 connections no more than 4"),
        ({"initial": None}, [], "initial is None: it must be a Criterion"),
        ({"structure": None}, [], "structure is None: it must be a structure"),
        ({}, [3], "parts holds 3: it has neither a kind nor a name"),
    ],
)
def test_data_that_names_no_part_is_refused(data: Any, parts: list[Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Recipe.from_dict(data, parts)


@checks("B2")
@pytest.mark.parametrize("parameter", ["momentum", "l1", "noise"])
def test_numbers_are_read_as_written(parameter: str) -> None:
    recipe = Recipe(0.5, schedule=SCHEDULE, **{parameter: np.float32(0.9)})
    assert getattr(recipe, parameter) == 0.9
    assert rigl.magnitude_and_gradient(np.float32(0.3)) == rigl.magnitude_and_gradient(0.3)


def test_functions_that_make_criteria_are_named_alike() -> None:
    """Each name in the catalog is also the name of its criterion, or of the criterion that its function makes."""
    catalog: Mapping[str, Criterion | Callable[[float], Criterion]] = CRITERIA
    for name, entry in catalog.items():
        assert (entry if isinstance(entry, Criterion) else entry(0.5)).name == name
