"""Whole numbers shared in int32 alone, compared with fractions and sorting."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigl_core.adapter import numpy_namespace as xp
from rigl_core.arrays import sharing
from rigl_core.parts.drop_fractions import Constant, fraction_digits, fraction_numbers
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing.checks import checks

INT32 = 2**31 - 1


def int32(*numbers: int) -> npt.NDArray[np.int32]:
    return np.array(numbers, np.int32)


def by_largest_remainder(total: int, weights: list[int]) -> list[int]:
    """Give units one by one; each goes to the place that is furthest below its share."""
    whole = sum(weights) or len(weights)
    shares = [Fraction(total * (w if any(weights) else 1), whole) for w in weights]
    counts = [math.floor(share) for share in shares]
    while sum(counts) < total:
        counts[max(range(len(shares)), key=lambda i: (shares[i] - counts[i], -i))] += 1
    return counts


@st.composite
def weight_lists(draw: st.DrawFn) -> list[int]:
    """Lists of small weights with ties, and lists whose sum is just below the limit."""
    if draw(st.booleans()):
        return draw(st.lists(st.integers(0, 6), min_size=1, max_size=8))
    whole = sharing.MOST - 1
    cuts = sorted(draw(st.lists(st.integers(0, whole), max_size=7)))
    return [after - before for before, after in zip([0, *cuts], [*cuts, whole], strict=True)]


totals = st.one_of(st.integers(0, 40), st.integers(0, INT32), st.integers(INT32 - 40, INT32))


@checks("M4", "M5")
@given(totals, weight_lists())
def test_shares_in_proportion(total: int, weights: list[int]) -> None:
    shares = sharing.in_proportion(int32(total), int32(*weights), xp=xp)
    assert shares.dtype == np.int32
    assert shares.tolist() == by_largest_remainder(total, weights)


@st.composite
def rooms(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """A total, weights, and rooms that can hold the total; some rooms are empty, some huge."""
    weights = draw(weight_lists())
    most = draw(st.sampled_from([3, 30, INT32 // len(weights)]))
    room = draw(st.lists(st.integers(0, most), min_size=len(weights), max_size=len(weights)))
    return draw(st.integers(0, sum(room))), weights, room


@checks("M5")
@given(rooms())
def test_shares_within_room(case: tuple[int, list[int], list[int]]) -> None:
    total, weights, room = case
    given_ = sharing.within_room(int32(total), int32(*weights), int32(*room), xp=xp).tolist()
    assert sum(given_) == total
    assert all(0 <= share <= most for share, most in zip(given_, room, strict=True))
    expected = [0] * len(room)
    for _ in range(3):
        open_weights = [w if g < r else 0 for w, g, r in zip(weights, expected, room, strict=True)]
        shares = by_largest_remainder(total - sum(expected), open_weights)
        expected = [min(g + share, r) for g, share, r in zip(expected, shares, room, strict=True)]
    for i, most in enumerate(room):
        expected[i] += min(total - sum(expected), most - expected[i])
    assert given_ == expected


@given(rooms())
def test_shares_that_fit_are_those_in_proportion(case: tuple[int, list[int], list[int]]) -> None:
    total, weights, _ = case
    plain = sharing.in_proportion(int32(total), int32(*weights), xp=xp)
    np.testing.assert_array_equal(sharing.within_room(int32(total), int32(*weights), plain + 1, xp=xp), plain)


fractions = st.one_of(
    st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0, 0.333333333333, 0.999999999999, 1e-12]),
    st.decimals(0, 1, places=12).map(float),
)
counts = st.one_of(st.integers(0, 100), st.integers(2 * 10**8 - 50, 2 * 10**8), st.integers(0, INT32), st.just(INT32))


@checks("M5", "S4")
@given(fractions, st.lists(counts, min_size=1, max_size=4))
def test_a_share_is_the_floor_of_the_product(fraction: float, active: list[int]) -> None:
    numbers = fraction_numbers(UpdateSchedule(end=1, every=1), Constant(fraction))
    digits = fraction_digits(numbers)[0]
    assert (digits.dtype, len(digits)) == (np.int32, 13)
    assert sum(int(digit) * Fraction(1, 10**place) for place, digit in enumerate(digits)) == Fraction(
        f"{fraction:.12f}"
    )
    shares = sharing.share_of(int32(*active), digits, xp=xp)
    assert shares.tolist() == [math.floor(Fraction(f"{fraction:.12f}") * n) for n in active]


def exact_means(scores: list[npt.NDArray[Any]], masks: list[npt.NDArray[np.bool_]]) -> list[int]:
    """Exact means. Scores are scaled so that the largest finite active one is in [2**15, 2**16); then all are cut."""
    active = [
        [Fraction(float(x)) for x in values[mask] if math.isfinite(x)]
        for values, mask in zip(scores, masks, strict=True)
    ]
    largest = max((x for own in active for x in own), default=Fraction(0))
    scale = Fraction(1)
    while largest and largest * scale >= 2**16:
        scale /= 2
    while largest and largest * scale < 2**15:
        scale *= 2
    sums = [16 * sum(math.floor(x * scale) for x in own) for own in active]
    return [total // max(int(mask.sum()), 1) for total, mask in zip(sums, masks, strict=True)]


LARGEST = {"float16": 2.0**15, "float32": 2.0**127, "float64": 2.0**1023}
SMALLEST = {"float16": 2.0**-14, "float32": 2.0**-126, "float64": 2.0**-1022}


@st.composite
def layers_of_scores(draw: st.DrawFn) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[np.bool_]]]:
    """Layers of any dtype and scale, with infinities, zeros and ties; some masks are empty."""
    dtype = draw(st.sampled_from(["float16", "float32", "float64"]))
    top = math.frexp(draw(st.sampled_from([SMALLEST[dtype], SMALLEST[dtype] * 2**9, 1.0, LARGEST[dtype] * 0.99])))[1]
    scores, masks = [], []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 12))
        parts = draw(st.lists(st.floats(0.5, 1, width=16), min_size=size, max_size=size))
        down = draw(st.lists(st.integers(0, 24), min_size=size, max_size=size))
        values = [math.ldexp(part, top - bits) for part, bits in zip(parts, down, strict=True)]
        chosen = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=size, max_size=size))
        values = [[value, 0.0, math.inf][choice] for value, choice in zip(values, chosen, strict=True)]
        typed = np.array(values, dtype)
        scores.append(np.where(typed < SMALLEST[dtype], np.zeros_like(typed), typed))
        masks.append(np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), np.bool_))
    return scores, masks


@checks("M5")
@settings(max_examples=100)
@given(layers_of_scores(), st.randoms(use_true_random=False))
def test_mean_scores_are_exact(case: tuple[list[npt.NDArray[Any]], list[npt.NDArray[np.bool_]]], random: Any) -> None:
    scores, masks = case
    means = sharing.mean_scores(scores, masks, xp=xp)
    assert means.dtype == np.int32
    assert means.tolist() == exact_means(scores, masks)
    order = [random.sample(range(len(mask)), len(mask)) for mask in masks]
    shuffled = [[x[places] for x, places in zip(arrays, order, strict=True)] for arrays in (scores, masks)]
    np.testing.assert_array_equal(sharing.mean_scores(*shuffled, xp=xp), means)  # type: ignore[arg-type]


@checks("M5")
@pytest.mark.parametrize("layers", [1, 128, 129, 300, 1000])
def test_means_of_many_layers_can_be_shared(layers: int) -> None:
    """All means are as large as possible: sharing in proportion to them does not overflow, and stays fair."""
    scores = [np.full(3, 2 - 2**-20, np.float32)] * layers
    means = sharing.mean_scores(scores, [np.ones(3, np.bool_)] * layers, xp=xp)
    assert 0 < int(means.sum(dtype=np.int64)) < sharing.MOST
    shares = sharing.in_proportion(int32(layers * 7), means, xp=xp)
    assert shares.tolist() == [7] * layers
