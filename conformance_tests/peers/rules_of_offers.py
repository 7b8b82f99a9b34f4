"""What a library offers at all, by the recipes that its harness accepts; a row of the second table each."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace

import pytest

from rigl_core import Constant, Cosine, ErdosRenyi, Layer, Recipe, Uniform, UpdateSchedule
from rigl_core.methods import RigL
from rigl_core.testing import Harness, NotOffered
from rigl_core.testing.method_trainings import MOVING, STATIC

DENSE = Layer("fc.weight", (8, 8), in_axes=(1,), out_axes=(0,))
KERNEL = Layer("conv.weight", (8, 8, 3, 3), in_axes=(1,), out_axes=(0,))
WHEN = UpdateSchedule(begin=3, end=35, every=4)
RIGL = RigL(0.5, schedule=WHEN)

METHODS: Mapping[str, Recipe] = {
    "RigL": RIGL,
    **{name: make(0.5, WHEN) for name, make in {**MOVING, **STATIC}.items() if name != "RigL"},
}
OPTIONS: Mapping[str, tuple[Recipe, str]] = {  # a recipe, and the part of it that the library has to accept
    "ERK distribution": (RIGL, "distribution"),
    "ER distribution": (replace(RIGL, distribution=ErdosRenyi()), "distribution"),
    "uniform distribution, first layer dense": (replace(RIGL, distribution=Uniform()), "distribution"),
    "uniform distribution, all layers": (replace(RIGL, distribution=Uniform(first_dense=False)), "distribution"),
    "cosine drop fraction": (replace(RIGL, drop_fraction=Cosine()), "drop_fraction"),
    "constant drop fraction": (replace(RIGL, drop_fraction=Constant()), "drop_fraction"),
    "an update at every step": (replace(RIGL, schedule=UpdateSchedule(end=35, every=1)), "schedule.every"),
    "a first update at any step": (replace(RIGL, schedule=UpdateSchedule(begin=2, end=35, every=4)), "schedule.begin"),
    "an end of the updates": (RIGL, "schedule.end"),
    "layers with a sparsity of their own": (replace(RIGL, layer_sparsity={"fc.*": 0.25}), "layer_sparsity"),
}


@pytest.mark.parametrize("method", METHODS)
def test_method(harness: Harness, mode: str, method: str) -> None:
    harness.offered(METHODS[method], (DENSE, replace(DENSE, name="fc2.weight")))


@pytest.mark.parametrize("option", OPTIONS)
def test_option(harness: Harness, mode: str, option: str) -> None:
    recipe, part = OPTIONS[option]
    offered = operator.attrgetter(part)(harness.offered(recipe, (DENSE, replace(DENSE, name="fc2.weight"))))
    if offered != operator.attrgetter(part)(recipe):
        raise NotOffered(f"{part} is {offered}")


def test_convolutions(harness: Harness, mode: str) -> None:
    harness.offered(RIGL, (DENSE, KERNEL))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtype(harness: Harness, mode: str, dtype: str) -> None:
    if dtype not in harness.dtypes:
        raise NotOffered(f"only {', '.join(harness.dtypes)}")
