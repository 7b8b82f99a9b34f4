"""Properties of schedules and drop counts (rules S1 to S4, B2)."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_core import Constant, Cosine, InversePower, Linear, UpdateSchedule
from rigl_core.parts.drop_fractions import drop_counts
from rigl_core.step.clock import Clock
from rigl_core.testing import oracle
from rigl_core.testing.checks import checks

schedules = st.builds(
    lambda begin, length, every: UpdateSchedule(begin=begin, end=begin + length, every=every),
    st.integers(0, 30),
    st.integers(0, 60),
    st.integers(1, 20),
)
alphas = st.decimals(0, 1, places=3).map(float)


@checks("S1")
@given(schedules)
def test_updates_fire_in_the_window(schedule: UpdateSchedule) -> None:
    expected = [t for t in range(120) if oracle.fires(t, schedule.begin, schedule.end, schedule.every)]
    assert [t for t in range(120) if schedule.fires(t)] == expected
    assert [schedule.step_of(update) for update in range(schedule.updates)] == expected


@checks("S2", "B2")
def test_the_end_is_given_or_derived() -> None:
    with pytest.raises(TypeError, match="end"):
        UpdateSchedule()  # type: ignore[call-arg]
    assert UpdateSchedule.for_training(2000, every=50) == UpdateSchedule(end=1500, every=50)
    assert UpdateSchedule.for_training(90, until=0.7).end == 63  # int(0.7 * 90) is 62


@checks("S3", "S4")
@given(schedules, alphas, st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4))
def test_cosine_drop_counts(schedule: UpdateSchedule, alpha: float, active: list[int]) -> None:
    table = drop_counts(schedule, Cosine(alpha), active)
    assert table.dtype == np.int32
    assert table.shape == (schedule.updates, len(active))
    for update, row in enumerate(table):
        f = oracle.cosine(alpha, schedule.step_of(update), schedule.begin, schedule.end)
        assert row.tolist() == [oracle.drop_count(f, n) for n in active]


@checks("S3")
@given(schedules, alphas, st.sampled_from([1.0, 2.0, 3.0, 0.5]))
def test_the_other_decays(schedule: UpdateSchedule, alpha: float, power: float) -> None:
    n = 10**6
    for update in range(schedule.updates):
        x = (schedule.step_of(update) - schedule.begin) / (schedule.end - schedule.begin)
        for decay, f in (
            (Constant(alpha), alpha),
            (Linear(alpha), alpha * (1 - x)),
            (InversePower(alpha, power), alpha * (1 - x) ** power),
        ):
            assert abs(int(drop_counts(schedule, decay, [n])[update, 0]) - f * n) <= 1


@checks("S4")
@given(st.integers(0, 2**31 - 1), st.decimals(0, 1, places=12).map(float))
def test_drop_counts_are_exact(active: int, fraction: float) -> None:
    table = drop_counts(UpdateSchedule(end=1, every=1), Constant(fraction), [active])
    assert table.tolist() == [[math.floor(Fraction(f"{fraction:.12f}") * active)]]


@checks("S4")
@pytest.mark.parametrize(("fraction", "active", "expected"), [(0.7, 90, 63), (0.3, 10, 3), (0.29, 100, 29), (1, 5, 5)])
def test_drop_counts_where_floats_are_wrong(fraction: float, active: int, expected: int) -> None:
    """int(0.7 * 90) is 62, and int(0.29 * 100) is 28."""
    assert drop_counts(UpdateSchedule(end=1, every=1), Constant(fraction), [active]).tolist() == [[expected]]


@checks("T5", "S1")
@given(schedules, st.sets(st.integers(0, 100)))
def test_a_deferred_update_waits_until_it_can_be_made_or_lapses(schedule: UpdateSchedule, bad: set[int]) -> None:
    """The clock does what the rule says, step by step."""
    clock, waiting = Clock(schedule), None
    for t in range(100):
        if t >= schedule.end:
            waiting = None
        elif schedule.fires(t):
            waiting = (t - schedule.begin) // schedule.every
        assert clock.step == t
        assert clock.due == (waiting is not None)
        assert waiting is None or clock.update == waiting
        if waiting is not None and t not in bad:
            waiting = None
        clock = clock.next(waits=waiting is not None)
