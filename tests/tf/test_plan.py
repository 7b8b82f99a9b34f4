"""`plan` says what a recipe would do to a model, and changes nothing; also with layers and axes that a user gives."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import rigl_backends.tf
from rigl_backends.tf import choose_layers, describe, plan, sparsify
from rigl_core import NM, ErdosRenyi, GraSP, Layer, RigL, Static, Uniform
from rigl_core.testing.checks import checks
from tests.tf.helpers import SCHEDULE, assert_same, made_again, make_model, rigl, values

CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "include": {"include": ["net/fc1/bias"]},
    "exclude": {"exclude": ["net/fc1/*"], "include": ["net/fc2/bias"]},
    "axes": {"axes": {"net/fc2/kernel": ((1,), (0,))}},
    "layers": {"layers": [Layer("net/fc2/kernel", (10, 6)), Layer("net/fc1/bias", (10,))]},
}


@checks("P3")
@pytest.mark.parametrize("choice", CHOICES)
def test_the_plan_is_that_of_sparsify_and_changes_nothing(choice: str) -> None:
    """Of a model that sparsify is given, or of variables that its optimizer is built with."""
    model = make_model()
    before = values(model)
    of_model, of_variables = (plan(owner, rigl(), **CHOICES[choice]) for owner in (model, model.trainable_variables))
    assert_same(values(model), before)
    optimizer = sparsify(keras.optimizers.SGD(), rigl(), **CHOICES[choice])
    optimizer.build(model.trainable_variables)
    assert optimizer.plan == of_variables
    assert list(optimizer.masks) == [layer.name for layer in of_variables.layers]
    if choice == "layers":
        assert of_model == of_variables
    else:
        assert sparsify(keras.optimizers.SGD(), rigl(), model=make_model(), **CHOICES[choice]).plan == of_model


def test_a_recipe_that_asks_for_scores_is_planned_without() -> None:
    assert plan(make_model(), GraSP(0.5)).layers == tuple(choose_layers(make_model()))


def test_axes_go_before_what_the_model_tells() -> None:
    model = keras.Sequential([keras.Input((4,)), kl.Dense(3, name="a"), kl.Dense(5, name="b")], name="m")
    axes = {"m/a/*": ((1,), (0,))}
    assert [(layer.in_axes, layer.out_axes) for layer in choose_layers(model, axes=axes)] == [
        ((1,), (0,)),
        ((0,), (1,)),
    ]
    network = describe(model, tf.ones((1, 4)), axes=axes)
    assert tuple(network.layers) == tuple(choose_layers(model, axes=axes))
    er = Static(0.5, distribution=ErdosRenyi())
    assert plan(model, er, axes=axes).layers == network.layers


def test_a_structure_follows_the_given_axes() -> None:
    recipe = RigL(schedule=SCHEDULE, structure=NM(2, 4), distribution=Uniform(first_dense=False))
    kernel = keras.Variable(np.ones((8, 8), np.float32), name="kernel")
    optimizer = sparsify(keras.optimizers.SGD(), recipe, axes={"kernel": ((1,), (0,))})
    optimizer.build([kernel])
    (mask,) = optimizer.masks.values()
    assert (mask.reshape(8, 2, 4).sum(-1) == 2).all()
    assert not (mask.T.reshape(8, 2, 4).sum(-1) == 2).all()


def test_the_configuration_keeps_the_axes() -> None:
    optimizer = sparsify(keras.optimizers.SGD(), rigl(), axes={"net/fc1/*": ((1,), (0,))})
    assert made_again(optimizer).plan.layers[0].in_axes == (1,)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "include too": ({"layers": [], "include": ["*"]}, "layers already says what to sparsify"),
    "axes too": ({"layers": [], "axes": {"*": ((0,), (1,))}}, "layers already says what to sparsify"),
    "no layers": ({"layers": []}, "layers is empty"),
    "no such name": ({"layers": [Layer("head", (8, 8))]}, r"layers names 'head' of shape \(8, 8\)"),
    "another shape": (
        {"layers": [Layer("net/fc1/kernel", (8, 9))]},
        r"layers names 'net/fc1/kernel' of shape \(8, 9\)",
    ),
    "axes of nothing": (
        {"axes": {"conv/*": ((0,), (1,))}},
        r"axes holds the pattern 'conv/\*', which matches no layer",
    ),
    "axes that do not fit": ({"axes": {"net/fc1/*": ((0,), (2,))}}, r"in_axes=\(0,\) and out_axes=\(2,\) of layer"),
}


@checks("P3")
@pytest.mark.parametrize("case", WRONG)
def test_choices_that_do_not_fit_are_refused(case: str) -> None:
    choice, message = WRONG[case]
    model = make_model()
    with pytest.raises(ValueError, match=message):
        plan(model, rigl(), **choice)
    with pytest.raises(ValueError, match=message):
        sparsify(keras.optimizers.SGD(), rigl(), **choice).build(model.trainable_variables)


@checks("P3")
def test_what_is_no_built_model_is_not_planned() -> None:
    cases: list[tuple[Any, Any, str]] = [
        ("net", rigl(), r"model is a str: it must be a keras\.Model"),
        (keras.Sequential([kl.Dense(3)]), rigl(), "model is not built, so it has no weights yet"),
        (make_model(), None, "recipe is None: it must be a Recipe"),
        ([tf.Variable(np.ones((3, 2), np.int32), name="kernel")], rigl(), "layer 'kernel' has the dtype int32"),
    ]
    for model, recipe, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            plan(model, recipe)


def test_all_that_is_public_is_listed() -> None:
    for name in rigl_backends.tf.__all__:
        assert hasattr(rigl_backends.tf, name)
