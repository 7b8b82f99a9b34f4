"""Warnings about plans: layers without a connection, and layers that are a small part of their model."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest

from rigl_core import Layer, Recipe, RigL, SparsityWarning, SRigL, Static, Uniform, UpdateSchedule, make_plan
from rigl_core.plan.advice import highest_sparsity, warn_about
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=10, every=2)
LAYERS = [Layer("a", (30, 20), in_axes=(1,), out_axes=(0,)), Layer("b", (5, 30), in_axes=(1,), out_axes=(0,))]
RECIPES: list[Recipe] = [
    RigL(0.9999, schedule=SCHEDULE),
    Static(0.9999, distribution=Uniform(first_dense=False)),
    SRigL(0.999, schedule=SCHEDULE),
    RigL(0.999, schedule=SCHEDULE, dense=("a",)),
]


@checks("B11")
@pytest.mark.parametrize("recipe", RECIPES)
def test_an_empty_layer_is_named_with_the_highest_sparsity_without_one(recipe: Recipe) -> None:
    with pytest.warns(SparsityWarning, match="no connection in layer .*'b'.*At a sparsity of"):
        warn_about(make_plan(recipe, LAYERS))
    highest = highest_sparsity(recipe, LAYERS)
    assert highest is not None
    assert all(make_plan(replace(recipe, sparsity=highest), LAYERS).active)
    assert not all(make_plan(replace(recipe, sparsity=round(highest + 1e-4, 4)), LAYERS).active)


@checks("B11")
def test_layers_that_are_pinned_empty_have_no_highest_sparsity() -> None:
    recipe = RigL(0.5, schedule=SCHEDULE, layer_sparsity={"b": 0.999})
    assert highest_sparsity(recipe, LAYERS) is None
    with pytest.warns(SparsityWarning, match=r"no connection in layer 'b': nothing passes through it\. Lower"):
        warn_about(make_plan(recipe, LAYERS))


def test_the_plan_tells_the_share_of_all_parameters() -> None:
    others = {"embedding": 6000, "bias": 35}
    plan = make_plan(RigL(0.5, schedule=SCHEDULE), LAYERS, others)
    assert "with 750 of 6,785 parameters" in str(plan)
    assert plan == make_plan(RigL(0.5, schedule=SCHEDULE), LAYERS)
    with pytest.warns(SparsityWarning, match="the layers hold 750 of the model's 6,785 .*'embedding' with 6,000"):
        warn_about(plan)


def test_usual_plans_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_about(make_plan(RigL(0.9, schedule=SCHEDULE), LAYERS, {"bias": 35}))
        warn_about(make_plan(RigL(0.9, schedule=SCHEDULE), [*LAYERS, Layer("empty", (0, 3))]))
