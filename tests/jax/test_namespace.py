"""The namespace under jit, with traced counts, compared with NumPy's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rigl_backends.jax import jax_namespace
from rigl_backends.jax.whole import calling_namespace, whole_namespace
from rigl_core import RigL, UpdateSchedule
from rigl_core.adapter import Connections, Counts, move_pool, numpy_namespace, random_key, top_k_mask
from rigl_core.arrays.random import random_scores
from rigl_core.testing import oracle
from rigl_core.testing.checks import checks

RECIPE = RigL(0.5, schedule=UpdateSchedule(end=1))
DTYPES = ("float16", "bfloat16", "float32", "float64")


def bit_patterns(dtype: str, size: int, seed: int) -> Any:
    """An array of random bits, without NaN: it has numbers of all kinds, also subnormal ones."""
    rng = np.random.default_rng(seed)
    bits = 8 * jnp.dtype(dtype).itemsize
    array = rng.integers(0, 2**bits, size, f"uint{bits}", endpoint=False).view(jnp.dtype(dtype))
    return np.where(np.isnan(array.astype(np.float64)), array.dtype.type(0), array)


@pytest.mark.parametrize("dtype", [*DTYPES, "int32"])
def test_kth_largest_finds_the_same_bits_for_a_traced_k(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        for seed, size in enumerate((1, 2, 5, 300)):
            scores = bit_patterns(dtype, size, seed) if dtype != "int32" else bit_patterns("float32", size, seed)
            scores = scores.view(np.int32) if dtype == "int32" else scores
            kth_largest = jax.jit(jax_namespace.kth_largest)
            descending = np.sort(scores.astype(np.float64))[::-1]
            for k in {0, 1, size // 2, size}:
                for found in (kth_largest(scores, k), jax_namespace.kth_largest(jnp.asarray(scores), k)):
                    assert (found.dtype, found.shape) == (scores.dtype, (1,))
                    assert np.asarray(found).astype(np.float64).item() == descending[max(k, 1) - 1]


def test_kth_largest_of_nothing() -> None:
    for shape in ((0,), (3, 0)):
        assert jax_namespace.kth_largest(jnp.zeros(shape), 0).shape == (*shape[:-1], 1)
    assert top_k_mask(jnp.zeros(0), 0, xp=jax_namespace).shape == (0,)


@checks("P1", "T3", "T4")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("xp", [jax_namespace, whole_namespace, calling_namespace], ids=["flat", "whole", "callbacks"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_of_tie_heavy_arrays_are_numpys(dtype: str, xp: Any, compiled: bool) -> None:
    """Arrays have few distinct values, NaN, infinities and subnormal numbers. One program serves all drop counts."""
    with jax.enable_x64(dtype == "float64"):
        update = jax.jit(updated_by(xp)) if compiled else updated_by(xp)
        tiny = oracle.SMALLEST_NORMAL[dtype]
        pool = np.array([0, -0.0, 0.5, -0.5, 1, 2, np.nan, np.inf, -np.inf, tiny, -tiny / 2]).astype(jnp.dtype(dtype))
        rng = np.random.default_rng(0)
        for _ in range(60 if compiled else 15):
            weight, gradient = rng.choice(pool, (2, 40))
            mask = rng.random(40) < rng.random()
            k = int(rng.integers(0, mask.sum() + 1))
            counts = np.int32(mask.sum() - k), np.int32(k)
            new = np.asarray(update(jnp.asarray(weight), jnp.asarray(gradient), jnp.asarray(mask), *counts))
            if dtype == "bfloat16":  # NumPy has none
                lists = (x.astype(np.float64).tolist() for x in (weight, gradient))
                expected = np.array(oracle.rigl_mask(*lists, mask.tolist(), k, dtype))
            else:
                expected = updated_by(numpy_namespace)(weight, gradient, mask, *map(int, counts))
            np.testing.assert_array_equal(new, expected)


def updated_by(xp: Any) -> Any:
    def update(weight: Any, gradient: Any, mask: Any, keep: Any, grow: Any) -> Any:
        (updated,) = move_pool(RECIPE.rule, [Connections(weight, gradient)], [mask], Counts(keep, grow), xp=xp)
        return updated.mask

    return update


@checks("N1", "P1")
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_random_scores_wrap_around_as_numpys(x64: bool, promotion: Any) -> None:
    indices = np.arange(5000, dtype=np.int32)
    with jax.enable_x64(x64), jax.numpy_dtype_promotion(promotion):
        draw = jax.jit(lambda key, indices: random_scores((key[0], key[1]), indices, xp=jax_namespace))
        for update in range(4):
            key = random_key(7, "fc.kernel", update)
            scores = draw(np.array(key, np.int32), indices)
            assert scores.dtype == jnp.int32
            np.testing.assert_array_equal(scores, random_scores(key, indices, xp=numpy_namespace))
