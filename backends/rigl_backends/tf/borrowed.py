"""A Keras model lent for a computation that must leave no trace in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf


@contextlib.contextmanager
def borrowed(model: keras.layers.Layer, change: Callable[[tf.Tensor], tf.Tensor] = tf.identity) -> Iterator[None]:
    """While this lasts, a model has copies for variables: statistics and random states move in them alone.

    Args:
        model: a built model.
        change: makes the copies of its floating variables.
    """
    originals = [(variable, variable._value) for variable in model.variables]
    try:
        for variable, original in originals:
            copy = change(original) if original.dtype.is_floating else tf.identity(original)
            variable._value = tf.Variable(copy, trainable=original.trainable)
        yield
    finally:
        for variable, original in originals:
            variable._value = original


@contextlib.contextmanager
def in_float64(model: keras.layers.Layer) -> Iterator[None]:
    """While this lasts, a model computes in float64; its variables are to be lent in float64, too."""
    dtypes = [(variable, "_dtype", variable._dtype) for variable in model.variables]
    policies = [(layer, "_dtype_policy", layer._dtype_policy) for layer in model._flatten_layers()]
    try:
        for variable, attribute, dtype in dtypes:
            setattr(variable, attribute, "float64" if tf.as_dtype(dtype).is_floating else dtype)
        for layer, attribute, _ in policies:
            setattr(layer, attribute, keras.DTypePolicy("float64"))
        yield
    finally:
        for owner, attribute, value in (*dtypes, *policies):
            setattr(owner, attribute, value)
