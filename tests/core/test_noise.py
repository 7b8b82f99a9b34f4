"""The noise and the L1 term that Deep R adds to the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rigl_core import Connections
from rigl_core.adapter import numpy_namespace as xp
from rigl_core.adapter import random_key
from rigl_core.arrays.noise import GRADIENT_NOISE, noisy_gradient
from rigl_core.testing import score_oracle
from rigl_core.testing.checks import checks

SIZE = 200_000


def noise(step: int = 0, *, seed: int = 0, layer: str = "a", size: int = SIZE, scale: float = 1.0) -> npt.NDArray[Any]:
    zeros, indices = np.zeros(size, np.float64), np.arange(size, dtype=np.int32)
    connections = Connections(zeros, zeros, indices, random_key(seed, layer, GRADIENT_NOISE))
    return np.asarray(noisy_gradient(connections, 0.0, scale, step, xp=xp))


@checks("M8", "N1")
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_noise_is_nearly_normal(scale: float) -> None:
    z = noise(3, scale=scale) / scale
    assert abs(z.mean()) < 4 / SIZE**0.5
    assert abs(z.std() - 1) < 0.01
    assert abs((z**3).mean()) < 0.03  # symmetric
    assert np.abs(z).max() < 3.4641017  # the bound of a sum of four uniform numbers
    normal = {1: 0.3173, 2: 0.0455}  # shares beyond 1 and 2; those of a sum of four uniform numbers differ a little
    for bound, share in normal.items():
        assert abs((np.abs(z) > bound).mean() - share) < 0.015


@checks("M8")
def test_noise_is_independent_of_step_layer_seed_and_index() -> None:
    first = noise(0)
    others = [noise(step) for step in (1, 2, 3, 1000, 2**31 - 1)]
    others += [noise(0, layer="b"), noise(0, seed=1), np.roll(first, 1), np.roll(first, 64), first[::-1]]
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 5 / SIZE**0.5
        assert (first == other).mean() < 1e-3
    np.testing.assert_array_equal(noise(0), first)


@checks("M8", "N1")
@pytest.mark.parametrize("step", [0, 1, 77, 2**31 - 1])
def test_noise_is_a_pure_function(step: int) -> None:
    np.testing.assert_allclose(noise(step, size=50), score_oracle.noise(0, "a", step, 50), rtol=1e-12)
    scalar = np.array(step, np.int32)
    np.testing.assert_array_equal(noise(scalar, size=50), noise(step, size=50))  # type: ignore[arg-type]


@checks("M8")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_pull_is_towards_zero_and_keeps_the_dtype(dtype: Any) -> None:
    weight = np.array([2.0, -2.0, 0.0, -0.0, np.inf, -1e-7], dtype)
    gradient = np.array([1.0, 1.0, 1.0, 1.0, -1.0, 0.0], dtype)
    changed = noisy_gradient(Connections(weight, gradient), 0.25, 0.0, 0, xp=xp)
    assert changed.dtype == dtype
    assert changed.tolist() == [1.25, 0.75, 1.0, 1.0, -0.75, -0.25]
