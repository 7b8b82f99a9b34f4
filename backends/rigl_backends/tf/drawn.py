"""Initial values of a kernel that is never dense: as its own initializer draws them, for active weights alone."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import initializers

ANY_SHAPE = (
    *(initializers.Constant, initializers.Zeros, initializers.Ones),
    *(initializers.RandomNormal, initializers.RandomUniform, initializers.TruncatedNormal),
)
"""Initializers that draw each number alike, whatever the shape."""
TRUNCATED = 0.87962566103423978
"""The standard deviation of normal numbers that are cut at two; Keras divides by it, too."""


def drawn(name: str, initializer: Any, shape: tuple[int, ...], count: int) -> npt.NDArray[np.float32]:
    """Initial values.

    Args:
        name: the layer's.
        initializer: of its kernel.
        shape: of the dense kernel: (..., inputs, outputs), by which a variance is scaled.
        count: the number of active weights.

    Raises:
        ValueError: if the initializer makes a whole matrix, as an orthogonal one does.
    """
    if isinstance(initializer, initializers.VarianceScaling):
        initializer = _scaled(initializer, shape)
    elif not isinstance(initializer, ANY_SHAPE):
        raise ValueError(
            f"layer {name!r} was described, and its kernel_initializer {type(initializer).__name__} draws whole "
            "matrices: use one that draws single weights, or a dense layer."
        )
    values: npt.NDArray[np.float32] = keras.ops.convert_to_numpy(initializer((count,), dtype="float32"))
    return values


def _scaled(initializer: Any, shape: tuple[int, ...]) -> Any:
    """The initializer of single weights with the variance that a dense kernel would have."""
    fan_in, fan_out = (math.prod(shape[:-2]) * size for size in shape[-2:])
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    variance = initializer.scale / max(1.0, fans[initializer.mode])
    if initializer.distribution == "uniform":
        limit = math.sqrt(3 * variance)
        return initializers.RandomUniform(-limit, limit, initializer.seed)
    if initializer.distribution == "untruncated_normal":
        return initializers.RandomNormal(0.0, math.sqrt(variance), initializer.seed)
    return initializers.TruncatedNormal(0.0, math.sqrt(variance) / TRUNCATED, initializer.seed)
