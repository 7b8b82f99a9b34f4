"""Products of JAX's active weights that give the gradients which the suite asks for."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from rigl_backends.jax import ActiveWeight, sparse_conv, sparse_linear
from rigl_backends.jax.active_weight import Layout


def as_sample(layout: Layout, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The identity as inputs, which gives any gradient that is finite, and the gradient of the outputs."""
    axes = layout.rows, layout.channels, math.prod(layout.kernel or ())
    by_row = gradient.reshape(axes[::-1]).T if layout.inputs_first else gradient
    return jnp.eye(layout.cols, dtype=jnp.float32), by_row.reshape(layout.rows, layout.cols).T


def product(weight: ActiveWeight, x: jax.Array, groups: int) -> jax.Array:
    """The outputs (samples, outputs) for inputs that have a number for each column of the weight."""
    layout = weight.layout
    if layout.kernel is None:
        return sparse_linear(weight, x, inputs_first=layout.inputs_first)
    images = jnp.tile(x.reshape(-1, layout.channels, *layout.kernel), (1, groups, 1, 1))
    y = sparse_conv(weight, images, padding=0, groups=groups, inputs_first=layout.inputs_first, channels_last=False)
    return y.reshape(-1, layout.rows)
