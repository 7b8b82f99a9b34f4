"""Recipes: they can be stored as JSON, and their errors say what to do."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rigl_core
from rigl_core import (
    GRADIENT,
    SET,
    Constant,
    Cosine,
    ErdosRenyi,
    InversePower,
    Linear,
    PerLayer,
    Recipe,
    RigL,
    Static,
    Uniform,
    UpdateSchedule,
)
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=10, every=2)

recipes = st.builds(
    Recipe,
    sparsity=st.floats(0, 0.999),
    method=st.text(max_size=5),
    distribution=st.sampled_from([Uniform(False), ErdosRenyi(), PerLayer({"a*": 0.5, "*": 0.25})]),
    schedule=st.one_of(st.none(), st.builds(UpdateSchedule, end=st.integers(5, 9), begin=st.integers(0, 5))),
    drop_fraction=st.sampled_from([Cosine(0.2), Constant(1), Linear(0.5), InversePower(0.3, 2)]),
    drop=st.sampled_from([rigl_core.MAGNITUDE, rigl_core.RANDOM]),
    grow=st.sampled_from([rigl_core.GRADIENT, rigl_core.RANDOM, rigl_core.GRADIENT_BY_OUTPUT]),
    floor=st.integers(0, 3),
    on_update=st.sampled_from(["replace", "after"]),
    seed=st.integers(),
    dense=st.lists(st.text(max_size=3), max_size=2),
    layer_sparsity=st.dictionaries(st.text(max_size=3), st.floats(0, 0.999), max_size=2),
    compensate=st.booleans(),
)


@given(recipes)
def test_recipes_survive_json(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert hash(Recipe.from_json(recipe.to_json())) == hash(recipe)


def test_the_methods() -> None:
    assert RigL(0.9, schedule=SCHEDULE).rule.reads_gradient
    assert RigL(0.9, schedule=SCHEDULE).on_update == "replace"
    assert SET(0.9, schedule=SCHEDULE).on_update == "after"
    assert not SET(0.9, schedule=SCHEDULE).rule.reads_gradient
    assert Static(0.9).schedule is None
    assert not Static(0.9).rule.reads_gradient


@checks("P3")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1}, r"sparsity is 1: it must be in \[0, 1\)"),
        ({"sparsity": -0.1}, r"sparsity is -0.1: it must be in \[0, 1\)"),
        ({"sparsity": float("nan")}, "sparsity is nan: it must be finite"),
        ({"sparsity": "0.9"}, "sparsity is '0.9': it must be a number"),
        ({"sparsity": True}, "sparsity is True: it must be a number"),
        ({"dense": "fc*"}, r"dense is the string 'fc\*': give a list"),
        ({"dense": [3]}, "dense holds 3: every pattern must be a string"),
        ({"layer_sparsity": {"fc": 1.5}}, r"layer_sparsity\['fc'\] is 1.5"),
        ({"layer_sparsity": 0.5}, "layer_sparsity is 0.5: give a mapping"),
        ({"distribution": "erk"}, "distribution is 'erk': it must be a distribution"),
        ({"distribution": Uniform}, "it must be a distribution"),
        ({"schedule": 100}, "schedule is 100: it must be an UpdateSchedule"),
        ({"shadow": True, "on_update": "after", "regrown": "reset"}, "shadow is True: .* leave grown and regrown as"),
        ({"drop": "magnitude"}, "drop is 'magnitude': it must be a Criterion"),
        ({"initial": GRADIENT}, "initial is 'gradient', which reads the gradient"),
        ({"on_update": "before"}, "on_update is 'before': use 'replace' or 'after'"),
        ({"seed": 0.5}, "seed is 0.5: it must be a whole number"),
        ({"compensate": "yes"}, "compensate is 'yes': it must be True or False"),
    ],
)
def test_bad_recipes_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Recipe(**options)


@checks("P3")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sparsty": 0.5}, "recipe has the unknown key 'sparsty'"),
        ({"distribution": {"kind": "erk", "scale": 2}}, "distribution has the unknown key 'scale'"),
        ({"distribution": {"kind": "layerwise"}}, "distribution names the unknown 'layerwise': known are uniform, er"),
        ({"distribution": 3}, "distribution is 3: it must be a name, or a mapping with the key 'kind'"),
        ({"method": "SET", "sparsity": 0.5}, "method 'SET' without drop, grow, initial"),
        ({"schedule": {"end": 5, "stop": 7}}, "schedule has the unknown key 'stop'"),
        ({"grow": "luck"}, "grow names the unknown 'luck': known are magnitude, gradient, gradient_by_output, "),
        (["sparsity"], "it must be a mapping"),
    ],
)
def test_unknown_data_is_refused_by_name(data: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Recipe.from_dict(data)


@checks("P3")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UpdateSchedule(end=5, begin=6), "end is 5, before begin=6"),
        (lambda: UpdateSchedule(end=5, every=0), "every is 0: it must be at least 1"),
        (lambda: UpdateSchedule(end=5.5), "end is 5.5: it must be a whole number"),  # type: ignore[arg-type]
        (lambda: UpdateSchedule.for_training(100, until=1.5), r"until is 1.5: it must be in \[0, 1\]"),
        (lambda: UpdateSchedule.for_training(0), "total_steps is 0: it must be at least 1"),
        (lambda: Cosine(1.5), r"alpha is 1.5: it must be in \[0, 1\]"),
        (lambda: InversePower(0.3, 0), "power is 0: it must be positive"),
        (lambda: PerLayer({"a": 1.0}), r"sparsities\['a'\] is 1.0"),
    ],
)
def test_bad_parts_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_numpy_numbers_are_numbers() -> None:
    assert Recipe(sparsity=np.float32(0.9)).sparsity == 0.9
    assert UpdateSchedule(end=np.int64(10)) == UpdateSchedule(end=10)
    assert Recipe(seed=np.int32(3)).seed == 3
