"""The error for every mistake names it, and changes nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.tf import plan, sparsify
from rigl_core import Layer, RigL, UpdateSchedule
from tests.tf.helpers import assert_same, make_model, rigl, values


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_tensorflow_is_named_where_it_is_missing() -> None:
    error = run("import sys; sys.modules['tensorflow'] = None; import rigl_backends.tf").stderr
    assert "ImportError: rigl_backends.tf needs TensorFlow: pip install 'rigl-core[tensorflow]'" in error


def test_another_backend_of_keras() -> None:
    """Keras says that it runs on JAX; JAX itself need not be installed."""
    error = run("import keras; keras.backend.backend = lambda: 'jax'; import rigl_backends.tf").stderr
    assert "ImportError: rigl_backends.tf needs Keras on TensorFlow, and Keras runs on 'jax'" in error


LEGACY = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})()


class Network(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first = tf.Variable(np.ones((3, 4, 2), np.float32), name="first")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "optimizer": ({"optimizer": "adam"}, "optimizer is a str: it must be a keras.optimizers.Optimizer"),
    "recipe": ({"recipe": 0.9}, "recipe is 0.9: it must be a Recipe"),
    "model": ({"model": "net"}, "model is a str: it must be a keras.Model"),
    "legacy model": (
        {"model": LEGACY},
        "model is a Sequential of tf_keras, which is Keras 2: it must be a keras.Model",
    ),
    "legacy optimizer": ({"optimizer": LEGACY}, "optimizer is a Sequential of tf_keras, which is Keras 2"),
    "module": (
        {"model": Network()},
        "model is the tf.Module Network, which does not tell what its variables are: name",
    ),
    "unbuilt": ({"model": keras.Sequential([keras.layers.Dense(3)])}, "model is not built"),
    "scaler": (
        {"optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())},
        "optimizer is a LossScaleOptimizer, whose gradients are scaled: put it outside",
    ),
    "twice": ({"optimizer": sparsify(keras.optimizers.Adam(), rigl())}, "optimizer is already sparsified"),
    "letters": ({"include": "fc1"}, "include is the string 'fc1'"),
    "both": ({"layers": [Layer("x", (2, 2))], "exclude": ["y"]}, "layers already says what to sparsify"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_sparsify_refuses(case: str) -> None:
    options, message = WRONG[case]
    with pytest.raises((TypeError, ValueError)) as error:
        sparsify(**{"optimizer": keras.optimizers.Adam(), "recipe": rigl(), **options})
    assert str(error.value).startswith(message)


def test_accumulation_in_one_of_several_optimizers() -> None:
    one_of_them = keras.optimizers.Adam(gradient_accumulation_steps=2)
    optimizer = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(one_of_them))
    with pytest.raises(ValueError, match="optimizer accumulates gradients in one of its optimizers only"):
        sparsify(optimizer, rigl())


def schedule() -> UpdateSchedule:
    return UpdateSchedule(end=10)


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "pattern": (
        {"exclude": ["conv*"]},
        r"exclude holds the pattern 'conv\*'.*the names are: 'net/fc1/kernel'",
    ),
    "nothing": ({"exclude": ["*"]}, "layers is empty: the model has nothing to sparsify"),
    "dense": ({"recipe": RigL(0.5, schedule=schedule(), dense=["fc*"])}, r"dense holds the pattern 'fc\*'"),
    "pinned": ({"recipe": RigL(0.5, schedule=schedule(), dense=["*"])}, "sparsity=0.5 has nothing to sparsify"),
    "missing": ({"layers": [Layer("net/fc9/kernel", (2, 2))]}, r"layers names 'net/fc9/kernel' of shape"),
    "shape": (
        {"layers": [Layer("net/fc1/kernel", (2, 2))]},
        r"layers names 'net/fc1/kernel' of shape \(2, 2\)",
    ),
}


class Own(keras.layers.Layer):  # type: ignore[misc]
    """Keras does not say what the weights of one's own layers are."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(shape[-1], 5), name="table")

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, self.table)


def test_what_has_no_known_layer_is_listed() -> None:
    model = keras.Sequential([keras.Input((4,)), Own(name="own")], name="net")
    seen = r"layers is empty: the model has nothing to sparsify. It has 'net/own/table' \(4, 5\). Name what .* include"
    with pytest.raises(ValueError, match=seen):
        sparsify(keras.optimizers.Adam(), rigl(), model=model)
    variables = list(Network().trainable_variables)
    with pytest.raises(ValueError, match=r"layers is empty: .* It has 'first' \(3, 4, 2\)"):
        plan(variables, rigl())
    chosen = plan(variables, rigl(), include=["first"], axes={"first": ((1,), (2,))})
    assert chosen.layers[0].n_in == 4


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_the_model(case: str) -> None:
    options, message = UNFIT[case]
    model = make_model()
    before = values(model)
    optimizer = sparsify(**{"optimizer": keras.optimizers.Adam(), "recipe": rigl(), **options})
    with pytest.raises(ValueError, match=message):
        optimizer.build(model.trainable_variables)
    assert_same(values(model), before)
    assert not optimizer.built
    assert not optimizer.inner_optimizer.built


def test_integers_cannot_be_layers() -> None:
    table = tf.Variable(np.ones((3, 2), np.int32), name="table")
    with pytest.raises(ValueError, match="layer 'table' has the dtype int32: only float16, bfloat16"):
        sparsify(keras.optimizers.SGD(), rigl(), include=["table"]).build([table])


def test_layers_of_one_name() -> None:
    layer = keras.layers.Dense(3, name="fc")
    other = keras.layers.Dense(3, name="fc")
    for one in (layer, other):
        one.build((None, 3))
    with pytest.raises(ValueError, match="layers holds the name 'fc/kernel' more than once"):
        sparsify(keras.optimizers.SGD(), rigl()).build([*layer.trainable_variables, *other.trainable_variables])


def test_before_it_is_built() -> None:
    optimizer = sparsify(keras.optimizers.SGD(), rigl())
    assert optimizer.step == 0
    for look in (lambda: optimizer.masks, lambda: optimizer.plan, lambda: optimizer.table):
        with pytest.raises(ValueError, match="optimizer is not built: call build"):
            look()
    with pytest.raises(ValueError, match="optimizer is not built: call build"):
        optimizer.apply([tf.ones(3)])


def test_variables_it_was_not_built_with() -> None:
    optimizer = sparsify(keras.optimizers.SGD(), rigl(), model=make_model())
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([tf.ones((12, 10))], make_model().trainable_variables[:1])
