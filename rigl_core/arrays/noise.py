"""Deep R changes the gradient of active weights: it adds a pull towards zero, and noise."""

from __future__ import annotations

from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace
from rigl_core.arrays.random import random_scores

GRADIENT_NOISE = -2
"""The update number in the random key of the noise. `noisy_gradient` adds the step to the key."""

_DRAWS = (0, 0x1B873593, 0x2545F491, 0x5BD1E995)
_DEVIATION = 2**16 / 3**0.5  # of the sum of four uniform numbers of 16 bits


def noisy_gradient(connections: Connections, l1: float, noise: float, step: Array, *, xp: Namespace) -> Array:
    """gradient + l1 * sign(weight) + noise * z: the gradient that the optimizer gets.

    z is nearly standard normal: the scaled sum of four uniform numbers, a pure function of seed, layer, step and index.
    With learning rate lr and temperature T, the published noise is sqrt(2 T / lr) (Bellec et al. 2018, equation 2).

    Args:
        connections: all connections of a layer, active or not, with indices and the key of `GRADIENT_NOISE`.
        l1: strength of the pull towards zero.
        noise: standard deviation of the noise.
        step: the number of the optimizer step, from 0; a Python integer or an int32 scalar.
        xp: the arrays' namespace.

    Returns:
        Flat array in the dtype of the gradient.
    """
    weight, gradient = connections.weight, connections.gradient
    wide = xp.widen(gradient)
    if l1:
        one, zero = xp.full_like(wide, 1), xp.zeros_like(wide)
        wide = wide + l1 * (xp.where(weight > 0, one, zero) - xp.where(weight < 0, one, zero))
    if noise:
        assert connections.random_key is not None
        first, second = connections.random_key
        draws = (
            xp.bitwise_right_shift(random_scores((first ^ draw, second ^ step), connections.indices, xp=xp), 15)
            for draw in _DRAWS
        )
        total = sum(draws, connections.indices * 0) - 2**17
        wide = wide + xp.astype(total, wide.dtype) * (noise / _DEVIATION)
    return xp.astype(wide, gradient.dtype)
