"""Scores that the user gives: which are refused, and how infinite, subnormal and NaN scores count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rigl_core as rigl
from rigl_core import Connections, Layer, make_plan
from rigl_core.adapter import initial_masks
from rigl_core.adapter import numpy_namespace as xp
from rigl_core.step.errors import check_scores
from rigl_core.testing.checks import checks

LAYERS = [Layer("a", (2, 3)), Layer("b", (4, 2))]
SCORES = {"a": np.ones((2, 3)), "b": np.ones((4, 2))}


@checks("P3")
@pytest.mark.parametrize(
    ("recipe", "scores", "message"),
    [
        (rigl.LotteryTicket(0.5), None, "scores is NoneType: the recipe asks for arrays by layer name"),
        (rigl.LotteryTicket(0.5), [1, 2], "scores is list: the recipe asks for arrays by layer name"),
        (
            rigl.LotteryTicket(0.5),
            {"a": SCORES["a"]},
            r"scores has none for layer 'b': give an array of shape \(4, 2\)",
        ),
        (rigl.LotteryTicket(0.5), {}, "scores has none for layer 'a'"),
        (rigl.GraSP(0.5), {**SCORES, "b": [1] * 8}, "scores of layer 'b' are a list: give an array"),
        (
            rigl.SynFlow(0.5),
            {**SCORES, "b": np.ones(8)},
            r"scores of layer 'b' have the shape \(8,\): they must have the layer's, \(4, 2\)",
        ),
        (rigl.Static(0.5), SCORES, "scores are given, and the recipe starts from 'random': leave them out, or use"),
        (
            rigl.DNW(0.5, schedule=rigl.UpdateSchedule(5)),
            {},
            "scores are given, and the recipe starts from 'magnitude'",
        ),
    ],
)
def test_scores_that_do_not_fit_are_refused(recipe: rigl.Recipe, scores: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        check_scores(make_plan(recipe, LAYERS), scores)


def test_scores_that_fit() -> None:
    check_scores(make_plan(rigl.LotteryTicket(0.5), LAYERS), SCORES)
    check_scores(make_plan(rigl.LotteryTicket(0.5), LAYERS), {**SCORES, "bias": np.ones(3)})
    check_scores(make_plan(rigl.LotteryTicket(0.5, dense=["b"]), LAYERS), {"a": SCORES["a"]})
    check_scores(make_plan(rigl.LotteryTicket(0.0), LAYERS), None)
    check_scores(make_plan(rigl.LotteryTicket(0.0), LAYERS), SCORES)
    check_scores(make_plan(rigl.Static(0.5), LAYERS), None)


@checks("M7", "T4")
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_strange_scores_count_as_zero_and_signs_count(scope: Any) -> None:
    recipe = rigl.LotteryTicket(0.5, scope=scope, distribution=rigl.Uniform(first_dense=False))
    given = [
        np.array([np.nan, 1e-39, -1.0, np.inf, 0.5, -np.inf], np.float32),
        np.array([-2.0, np.nan, 3.0, 1e-40, -1e-40, -0.0, 2.0, -3.0], np.float32),
    ]
    layers = [Connections(scores, scores=scores, layer=layer) for scores, layer in zip(given, LAYERS, strict=True)]
    active = make_plan(recipe, LAYERS).initial_active
    masks = initial_masks(recipe.rule, layers, active, xp=xp)
    values = [np.where(np.abs(np.nan_to_num(x, posinf=9)) < 1e-38, 0, np.nan_to_num(x)) for x in given]
    pairs = [(-float(x), layer, i) for layer, own in enumerate(values) for i, x in enumerate(own)]
    if scope == "global":
        best = sorted(pairs)[: sum(active)]
    else:
        best = [pair for layer in (0, 1) for pair in sorted(p for p in pairs if p[1] == layer)[: active[layer]]]
    expected = {(layer, i) for _, layer, i in best}
    assert {(layer, int(i)) for layer, mask in enumerate(masks) for i in np.flatnonzero(mask)} == expected


@checks("M7")
def test_a_ticket_without_scores_is_dense() -> None:
    plan = make_plan(rigl.LotteryTicket(0.0), LAYERS)
    assert plan.pools == ((0, 1),)
    layers = [Connections(np.zeros(layer.size, np.float32), layer=layer) for layer in LAYERS]
    masks = initial_masks(plan.recipe.rule, layers, plan.initial_active, xp=xp)
    assert all(mask.all() for mask in masks)
