"""Variables of Keras that hold a number for each active weight."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf


def exchange(variable: keras.Variable, values: npt.NDArray[Any]) -> None:
    """Give a variable numbers of another shape. It stays the same object; those who hold it see the new ones.

    A function that was traced before holds the old numbers, which become NaN: it must not give old results.
    """
    old = variable.value
    with tf.init_scope():
        variable._initialize(values)
        variable._shape, variable._ndim = values.shape, values.ndim
        old.assign(tf.fill(old.shape, tf.constant(np.nan, old.dtype)))


def moved(values: tf.Tensor, source: tf.Tensor, new: Any) -> tf.Tensor:
    """Numbers of active weights after an update.

    Args:
        values: those before it.
        source: int32, for each active weight after it, its position before it; -1 if it is new.
        new: what new weights get: one number, or one for each active weight.
    """
    stayed = tf.gather(values, tf.maximum(source, 0))
    return tf.where(source < 0, tf.cast(new, values.dtype), stayed)
