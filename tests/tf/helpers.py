"""A small model, its gradients, and checks that hold in every sparse training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.keras_common.state import state_of
from rigl_backends.tf import SparseOptimizer
from rigl_core import Constant, Recipe, RigL, UpdateSchedule

Arrays = dict[str, npt.NDArray[Any]]

SCHEDULE = UpdateSchedule(end=40, every=4)
MODES = ("eager", "function", "xla")


def made_again(optimizer: SparseOptimizer) -> SparseOptimizer:
    """The optimizer that the configuration makes; both are built then, and have one plan."""
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, SparseOptimizer)
    assert again.get_config() == optimizer.get_config()
    for one in (optimizer, again):
        one.build(make_model().trainable_variables)
    assert again.plan == optimizer.plan
    return again


def rigl(**schedule: int) -> Recipe:
    """RigL with a constant drop fraction."""
    timing = UpdateSchedule(**schedule) if schedule else SCHEDULE
    return RigL(0.7, schedule=timing, drop_fraction=Constant(0.3), seed=3)


def make_model(dtype: str = "float32") -> keras.Model:
    """Two Dense layers with a norm between them; the weights are the same in every test."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(10, name="fc1", dtype=dtype),
            keras.layers.BatchNormalization(name="norm", dtype=dtype),
            keras.layers.ReLU(),
            keras.layers.Dense(6, name="fc2", dtype=dtype),
        ],
        name="net",
    )


def make_data(batches: int = 8, size: int = 16) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(batches * size, 12)).astype(np.float32), rng.integers(0, 6, batches * size)


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_gradients(variables: Sequence[Any], number: int) -> list[tf.Tensor]:
    """Dense gradients; they depend on the step's number only."""
    rng = np.random.default_rng((5, number))
    return [tf.cast(rng.normal(size=variable.shape), variable.dtype) for variable in variables]


def compiled(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    if mode == "eager":
        return function
    result: Callable[..., Any] = tf.function(function, jit_compile=mode == "xla")
    return result


def traces(function: Any) -> int:
    """The number of times that TensorFlow has traced a function from `compiled`."""
    return 0 if not hasattr(function, "experimental_get_tracing_count") else function.experimental_get_tracing_count()


def values(*owners: Any) -> list[npt.NDArray[Any]]:
    """Copies of all variables of models and optimizers."""
    return [variable.numpy() for owner in owners for variable in owner.variables]


def assert_same(first: Sequence[npt.NDArray[Any]], second: Sequence[npt.NDArray[Any]]) -> None:
    """Check that two lists of arrays are equal, bit for bit."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def layer_arrays(optimizer: SparseOptimizer, variables: Sequence[Any]) -> dict[str, list[npt.NDArray[Any]]]:
    """The weights and the per-weight optimizer state of each variable, by its path."""
    state = state_of(optimizer.inner_optimizer, variables)
    return {
        variable.path: [x.numpy() for x in (variable, *own)] for variable, own in zip(variables, state, strict=True)
    }


Fresh = Sequence[float]
"""What weights outside a mask, and each of their state variables, hold."""


def assert_zero_outside(
    arrays: Mapping[str, list[npt.NDArray[Any]]], masks: Arrays, fresh: Fresh | None = None
) -> None:
    """Check the weights outside the masks, and their state: all +0, or what is ``fresh``."""
    for name, mask in masks.items():
        for array, value in zip(arrays[name], fresh or [0.0] * len(arrays[name]), strict=True):
            outside = array[~mask]
            assert (outside == np.asarray(value, array.dtype)).all(), name
            assert not np.signbit(outside).any(), name


def assert_updated(
    before: Mapping[str, list[npt.NDArray[Any]]],
    after: Mapping[str, list[npt.NDArray[Any]]],
    old: Arrays,
    new: Arrays,
    fresh: Fresh | None = None,
) -> None:
    """Check that a step changed nothing except the topology."""
    assert any((old[name] != new[name]).any() for name in old)
    for name, arrays in before.items():
        survive = old[name] & new[name] if name in old else np.ones(arrays[0].shape, np.bool_)
        values = fresh or [0.0] * len(arrays)
        expected = [np.where(survive, x, np.full_like(x, value)) for x, value in zip(arrays, values, strict=True)]
        assert_same(after[name], expected)
