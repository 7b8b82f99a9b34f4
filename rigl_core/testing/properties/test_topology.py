"""Properties of one update of one flat array (rules T1 to T4, M2, N1, P1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from rigl_core.arrays.random import random_key
from rigl_core.parts.criteria import GRADIENT, MAGNITUDE, SALIENCY, magnitude_and_gradient
from rigl_core.testing import oracle
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Array, Harness, Mask
from rigl_core.testing.strategies import Update, updates

ALL_DTYPES = tuple(oracle.SMALLEST_NORMAL)


def _new_mask(harness: Harness, mode: str, case: Update) -> Mask:
    new = harness.updated_mask(case.weight, case.gradient, case.mask, case.keep, case.k, dtype=case.dtype, mode=mode)
    assert new.dtype == np.bool_
    assert new.shape == case.mask.shape
    return new


def _assert_as_the_oracle(harness: Harness, mode: str, case: Update) -> None:
    if case.dtype not in harness.dtypes:
        return
    expected = oracle.rigl_mask(case.weight.tolist(), case.gradient.tolist(), case.mask.tolist(), case.k, case.dtype)
    assert _new_mask(harness, mode, case).tolist() == expected


@checks("T1", "T2", "T3", "B1", "P1")
@for_all(updates(ALL_DTYPES), eager=200, compiled=5)
def test_new_mask_is_the_oracles(harness: Harness, mode: str, case: Update) -> None:
    """The mask is the oracle's for any weights, gradients, density and drop count, with many ties."""
    _assert_as_the_oracle(harness, mode, case)


@checks("T4", "P1")
@for_all(updates(ALL_DTYPES, special=True), eager=200, compiled=5)
def test_special_values_rank_alike_everywhere(harness: Harness, mode: str, case: Update) -> None:
    """The mask is the oracle's with NaN, infinities, -0 and subnormal numbers among the weights and gradients."""
    _assert_as_the_oracle(harness, mode, case)


@checks("T4")
@for_all(updates(("float32",)), eager=40, compiled=3)
def test_nan_neither_steals_nor_loses_a_slot(harness: Harness, mode: str, case: Update) -> None:
    """NaN in place of a zero does not change the mask."""
    is_zero_weight, is_zero_gradient = case.weight == 0, case.gradient == 0
    weight = np.where(is_zero_weight, np.float32("nan"), case.weight)
    gradient = np.where(is_zero_gradient, np.float32("nan"), case.gradient)
    with_nan = Update(weight, gradient, case.mask, case.k, case.dtype)
    np.testing.assert_array_equal(_new_mask(harness, mode, with_nan), _new_mask(harness, mode, case))


@checks("T1")
@for_all(updates(("float32",)), eager=40, compiled=3)
def test_inactive_is_never_kept_even_if_active_weights_are_zero(harness: Harness, mode: str, case: Update) -> None:
    """With k = 0 the mask stays, even if inactive weights are larger than active ones."""
    weight = np.where(case.mask, np.float32(0), np.float32(1))
    still = Update(weight, case.gradient, case.mask, 0, case.dtype)
    np.testing.assert_array_equal(_new_mask(harness, mode, still), case.mask)


@checks("T2")
@for_all(updates(("float32",)), eager=40, compiled=3)
def test_just_dropped_connections_can_be_regrown(harness: Harness, mode: str, case: Update) -> None:
    """If the gradients of active connections are the largest, all dropped connections grow again."""
    gradient = np.where(case.mask, np.float32(1), np.float32(0))
    regrown = Update(case.weight, gradient, case.mask, case.k, case.dtype)
    np.testing.assert_array_equal(_new_mask(harness, mode, regrown), case.mask)


@checks("T3")
@for_all(st.tuples(st.integers(0, 30), st.integers(0, 30), st.booleans()), eager=40, compiled=3)
def test_ties_go_to_the_lower_flat_index(harness: Harness, mode: str, case: tuple[int, int, bool]) -> None:
    """With all weights and gradients equal, the first active connections stay, and the first others grow."""
    size, k, first_half = max(case[0], case[1]), min(case[0], case[1]) // 2, case[2]
    active = size - size // 2
    mask = (np.arange(size) < active) if first_half else (np.arange(size) >= size - active)
    equal = np.ones(size, np.float32)
    k = min(k, active)
    new = _new_mask(harness, mode, Update(equal, equal, mask, k, "float32"))
    kept = np.flatnonzero(mask)[: active - k]
    grown = np.setdiff1d(np.arange(size), kept)[:k]
    np.testing.assert_array_equal(np.flatnonzero(new), np.union1d(kept, grown))


@checks("T3", "P1")
@for_all(st.tuples(st.integers(0, 2**32), st.sampled_from(ALL_DTYPES)), eager=6, compiled=2)
def test_large_layers_agree_with_a_stable_sort(harness: Harness, mode: str, case: tuple[int, str]) -> None:
    """40,000 weights with few distinct values, and many zero gradients, take the fast paths of large layers."""
    seed, dtype = case
    if dtype not in harness.dtypes:
        return
    rng = np.random.default_rng(seed)
    numpy_dtype = np.float32 if dtype == "bfloat16" else np.dtype(dtype).type
    mask = rng.random(40_000) < rng.random()
    weight, gradient = (rng.integers(-60, 60, mask.size).astype(numpy_dtype) / 8 for _ in range(2))
    for zeros in (0.5, 0.99):
        gradient[rng.random(mask.size) < zeros] = 0
        k = int(rng.integers(0, mask.sum() + 1))
        expected = by_a_stable_sort(weight, gradient, mask, k)
        new = _new_mask(harness, mode, Update(weight, gradient, mask, k, dtype))
        np.testing.assert_array_equal(new, expected)


def by_a_stable_sort(weight: Array, gradient: Array, mask: Mask, k: int) -> Mask:
    """RigL's new mask of a layer that is too large for the oracle's lists: flat arrays, without special values."""
    keep = int(mask.sum()) - k
    kept = np.zeros_like(mask)
    kept[np.argsort(np.where(mask, -np.abs(weight.astype(np.float64)), 1), kind="stable")[:keep]] = True
    grow_order = np.argsort(np.where(kept, 1, -np.abs(gradient.astype(np.float64))), kind="stable")
    expected = kept.copy()
    expected[grow_order[:k]] = True
    return expected


@checks("T4", "P1")
@for_all(updates(ALL_DTYPES, special=True), eager=60, compiled=4)
def test_scores_are_magnitudes(harness: Harness, mode: str, case: Update) -> None:
    """Scores are >= 0, without NaN and without -0, so users can build their own criteria on them."""
    if case.dtype not in harness.dtypes:
        return
    for criterion, array in ((MAGNITUDE, case.weight), (GRADIENT, case.gradient)):
        scores = harness.scores(criterion, case.weight, case.gradient, dtype=case.dtype, mode=mode)
        assert scores.tolist() == [oracle.magnitude(x, case.dtype) for x in array.tolist()]
        assert not np.signbit(scores).any()


@checks("M2", "T4", "P1")
@for_all(updates(ALL_DTYPES, special=True), eager=60, compiled=4)
def test_scores_of_products_are_rounded_one_by_one(harness: Harness, mode: str, case: Update) -> None:
    """Subnormal weights, gradients and products count as 0, and 16-bit numbers are multiplied as float32."""
    if case.dtype not in harness.dtypes:
        return
    name = "float64" if case.dtype == "float64" else "float32"
    wide: Any = np.dtype(name).type
    numbers = [[oracle.magnitude(x, case.dtype) for x in array.tolist()] for array in (case.weight, case.gradient)]
    weight, gradient = (np.array(array, wide) for array in numbers)
    with np.errstate(all="ignore"):
        saliency, pulled = (
            [oracle.magnitude(x, name) for x in product.tolist()]
            for product in (weight * gradient, gradient * wide(0.3))
        )
        total = (weight + np.array(pulled, wide)).tolist()
        for criterion, expected in ((SALIENCY, saliency), (magnitude_and_gradient(0.3), total)):
            scores = harness.scores(criterion, case.weight, case.gradient, dtype=case.dtype, mode=mode)
            assert scores.tolist() == expected, criterion.name


@checks("N1", "P1")
@for_all(
    st.tuples(st.integers(-(2**40), 2**70), st.text(max_size=12), st.integers(-1, 10**6), st.integers(0, 60)),
    eager=100,
    compiled=4,
)
def test_random_scores_are_the_oracles(harness: Harness, mode: str, case: tuple[int, str, int, int]) -> None:
    """Random scores are the oracle's for any seed, layer name, update number and size."""
    seed, layer, update, size = case
    scores = harness.random_scores(random_key(seed, layer, update), size, mode=mode)
    assert scores.dtype == np.int32
    assert scores.tolist() == oracle.random_scores(oracle.random_key(seed, layer, update), size)
