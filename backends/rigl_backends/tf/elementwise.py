"""Optimizers that leave zeros alone, so that nothing is to be done outside the masks after their steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.tf.namespace import tensorflow_namespace
from rigl_backends.tf.sparse_layer import SparseLayer

_ELEMENT_WISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.RMSprop,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.Lion,
)
"""Where weight, gradient and state are 0 their step is 0 / (0 + epsilon) at most. Subclasses may do anything."""


def keeps_zeros(optimizer: keras.optimizers.Optimizer, layers: Iterable[SparseLayer]) -> bool:
    """Whether weights and state that are 0, and have a gradient of 0, are +0 after any step of this optimizer.

    Clipping by a norm does not keep them where the norm is not finite: 0 * NaN.
    """
    clips = optimizer.clipnorm is not None or optimizer.global_clipnorm is not None
    return type(optimizer) in _ELEMENT_WISE and not clips and all(_is_safe(optimizer, one.variable) for one in layers)


def _is_safe(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """No constraint moves the weights, and epsilon is not 0 in their precision."""
    epsilon = getattr(optimizer, "epsilon", 1.0)
    smallest = tensorflow_namespace.smallest_normal(tf.convert_to_tensor(variable))
    return getattr(variable, "constraint", None) is None and epsilon >= smallest
