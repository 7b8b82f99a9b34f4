"""What does not train does not move (T6): layers that are frozen, not used, or whose gradient is 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.tf import sparsify
from rigl_core import DNW, DSR, SET, SNFS, Constant, GradualPruning, Recipe, RigL, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.tf.helpers import LOSS, compiled, layer_arrays, make_data, make_gradients, make_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning"),
    # Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

OFTEN = UpdateSchedule(end=90, every=2)
RECIPES: dict[str, Recipe] = {
    "RigL": RigL(0.7, schedule=OFTEN, drop_fraction=Constant(0.3)),
    "RigL, global": RigL(0.7, schedule=OFTEN, scope="global", drop_fraction=Constant(0.3)),
    "SET": SET(0.7, schedule=OFTEN, drop_fraction=Constant(0.3)),
    "SNFS": SNFS(0.7, schedule=OFTEN),
    "DSR": DSR(0.7, schedule=OFTEN),
    "DNW": DNW(0.7, schedule=OFTEN),
    "gradual pruning": GradualPruning(0.7, schedule=OFTEN),
}


def zeros(gradient: tf.Tensor) -> tf.Tensor:
    return tf.zeros_like(gradient)


def missing(gradient: tf.Tensor) -> None:
    return None


@checks("T6")
@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, mode) for name in RECIPES for mode in ("eager", "function")), ("RigL", "xla"), ("SET", "xla")],
)
def test_a_layer_without_information_keeps_everything(name: str, mode: str) -> None:
    """Its topology; at an update also its weights and its optimizer state. The other layers move."""
    model = make_model()
    optimizer = sparsify(keras.optimizers.Adam(0.01), RECIPES[name], model=model)
    variables = model.trainable_variables
    apply = compiled(lambda grads: optimizer.apply(grads, variables), mode)
    for step in range(3):
        apply(make_gradients(variables, step))
    for step, without in ((3, zeros), (4, zeros), (5, missing), (6, missing)):
        gradients = make_gradients(variables, step)
        before, masks = layer_arrays(optimizer, variables), optimizer.masks
        apply([without(gradients[0]), *gradients[1:]])
        np.testing.assert_array_equal(optimizer.masks["net/fc1/kernel"], masks["net/fc1/kernel"])
        if step % 2 == 0 and optimizer.recipe.rule.on_update == "replace":
            after = layer_arrays(optimizer, variables)
            for mine, its in zip(after["net/fc1/kernel"], before["net/fc1/kernel"], strict=True):
                np.testing.assert_array_equal(mine, its)
        if step % 2 == 0 and name != "DNW":  # whose weights learn too little to change places
            assert (optimizer.masks["net/fc2/kernel"] != masks["net/fc2/kernel"]).any()


@checks("T6")
@pytest.mark.parametrize("without", [zeros, missing], ids=["zeros", "missing"])
@pytest.mark.parametrize("name", ["RigL", "SET", "SNFS"])
def test_with_accumulation(name: str, without: Callable[[tf.Tensor], Any]) -> None:
    model = make_model()
    inner = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    optimizer = sparsify(inner, RECIPES[name], model=model)
    for call in range(8):
        masks = optimizer.masks
        gradients = make_gradients(model.trainable_variables, call)
        optimizer.apply([without(gradients[0]), *gradients[1:]], model.trainable_variables)
        np.testing.assert_array_equal(optimizer.masks["net/fc1/kernel"], masks["net/fc1/kernel"])
        moved = (optimizer.masks["net/fc2/kernel"] != masks["net/fc2/kernel"]).any()
        assert moved == (call % 4 == 1)


@checks("T6")
@pytest.mark.parametrize(("name", "jit_compile"), [("RigL", True), ("RigL, global", False), ("SET", False)])
def test_a_layer_that_is_frozen_during_training(name: str, jit_compile: bool) -> None:
    """Keras leaves its variables out of the step."""
    model = make_model()
    optimizer = sparsify(keras.optimizers.Adam(0.01), RECIPES[name], model=model)
    model.compile(optimizer, LOSS, jit_compile=jit_compile)
    model.fit(*make_data(), batch_size=16, verbose=0)
    kernel, masks = model.get_layer("fc1").kernel, optimizer.masks
    before, other = kernel.numpy(), model.get_layer("fc2").kernel.numpy()
    model.get_layer("fc1").trainable = False
    model.compile(optimizer, LOSS, jit_compile=jit_compile)
    model.fit(*make_data(), batch_size=16, verbose=0)
    np.testing.assert_array_equal(kernel, before)
    np.testing.assert_array_equal(optimizer.masks["net/fc1/kernel"], masks["net/fc1/kernel"])
    assert (model.get_layer("fc2").kernel.numpy() != other).any()
