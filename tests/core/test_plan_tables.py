"""The tables of a plan: the numbers that each update keeps and grows, with as few rows as possible."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rigl_core as rigl
from rigl_core import NM, Constant, Cosine, CubicRamp, Layer, Linear, Plan, Recipe, UpdateSchedule, make_plan, specs
from rigl_core.testing.checks import checks
from rigl_core.testing.method_trainings import MOVING, STATIC

MLP = specs.mlp(16, 12, 8, 4)
windows = st.builds(
    lambda begin, updates, every: UpdateSchedule(begin + updates * every, every, begin),
    st.integers(0, 3),
    st.integers(0, 8),
    st.integers(1, 3),
)


def pooled(plan: Plan, pool: tuple[int, ...], update: int) -> tuple[int, int]:
    """The planned active weights of a pool after an update, and the number of weights in one choice."""
    structure, layer = plan.recipe.structure, plan.layers[pool[0]]
    arrangement = structure.arrangement(layer)
    step = 1 if arrangement is None else arrangement.groups * arrangement.unit
    return sum(plan.active_after(update)[i] for i in pool), step


@checks("S4", "B1", "B9")
@settings(max_examples=30)
@given(st.sampled_from(sorted(MOVING)), st.sampled_from([0.3, 0.5, 0.8]), windows)
def test_the_tables_of_every_method(method: str, sparsity: float, schedule: UpdateSchedule) -> None:
    """Kept and grown add up to the planned number; the grown number is floor(drop fraction * planned)."""
    if not schedule.updates and method not in ("RigL", "SET", "SNFS", "DSR", "DNW"):
        return
    layers = [Layer(layer.name, layer.shape, (1,), (0,)) for layer in specs.mlp(16, 12, 8)]
    plan = make_plan(MOVING[method](sparsity, schedule), layers)
    schedule = plan.recipe.schedule or schedule
    before = plan.initial_active
    for update in range(schedule.updates):
        fraction = f"{plan.recipe.drop_fraction.fraction(schedule.progress(update)):.12f}"
        for number, pool in enumerate(plan.pools):
            counts = plan.counts(update, number)
            keep, grow = counts.keep, counts.grow
            total, step = pooled(plan, pool, update)
            assert (keep + grow) * step == total
            moves = math.floor(Fraction(fraction) * (total // step)) if plan.recipe.grow is not None else 0
            assert grow == moves
            assert keep * step <= sum(before[i] for i in pool)
        if plan.recipe.redistribution is not None:
            digits = plan.counts(update, 0).digits.tolist()
            assert f"{digits[0]}." + "".join(map(str, digits[1:])) == fraction
        before = plan.active_after(update)
    if schedule.updates:
        assert before == plan.active


@pytest.mark.parametrize("method", [*MOVING, *STATIC])
def test_the_tables_are_read_only_int32_with_equal_rows(method: str) -> None:
    plan = make_plan({**MOVING, **STATIC}[method](0.5, UpdateSchedule(end=12, every=2)), MLP)
    for table in (plan.keep_counts, plan.grow_counts, plan.digits, plan.targets, plan.drop_counts):
        assert table.dtype == np.int32
        assert not table.flags.writeable
    assert len(plan.keep_counts) == len(plan.grow_counts) == len(plan.digits)
    assert plan.keep_counts.shape[1] == plan.grow_counts.shape[1] == len(plan.pools)
    assert plan.digits.shape[1] == (0 if plan.recipe.redistribution is None else 13)
    assert plan.targets.shape[1] == plan.drop_counts.shape[1] == len(MLP)
    assert sorted(i for pool in plan.pools for i in pool) == list(plan.sparse_layers)


def test_equal_rows_are_one() -> None:
    schedule = UpdateSchedule(end=10, every=2)
    constant = make_plan(rigl.RigL(0.5, schedule=schedule, drop_fraction=Constant(0.3)), MLP)
    decaying = make_plan(rigl.RigL(0.5, schedule=schedule, drop_fraction=Linear(0.3)), MLP)
    unmoved = make_plan(rigl.RigL(0.5, schedule=schedule, drop_fraction=Cosine(1e-9)), MLP)
    assert [len(plan.keep_counts) for plan in (constant, decaying, unmoved)] == [1, 5, 1]
    for plan, rows in ((constant, [0, 0, 0]), (decaying, [0, 1, 4])):
        read = [plan.counts(update, 1) for update in (0, 1, 4)]
        assert [(counts.keep, counts.grow) for counts in read] == [
            (plan.keep_counts[row, 1], plan.grow_counts[row, 1]) for row in rows
        ]
    both = make_plan(rigl.RigL(0.5, schedule=schedule, drop_fraction=Constant(0.3), ramp=CubicRamp()), MLP)
    assert (len(both.keep_counts), len(both.targets)) == (5, 5)
    redistributed = replace(rigl.DSR(0.5, schedule=schedule), scope="layer", drop_fraction=Cosine(0.5))
    assert len(make_plan(redistributed, MLP).digits) == 5
    never = make_plan(rigl.RigL(0.5, schedule=UpdateSchedule(end=3, begin=3)), MLP)
    assert (len(never.keep_counts), len(never.targets), never.active) == (0, 0, never.initial_active)


def test_one_update_goes_all_the_way() -> None:
    plan = make_plan(rigl.OneShotPruning(0.75, at=7, distribution=rigl.Uniform(first_dense=False)), MLP)
    assert plan.initial_active == tuple(layer.size for layer in MLP)
    assert plan.keep_counts.tolist() == [[n // 4 for n in plan.initial_active]]
    assert plan.active == plan.active_after(0) == tuple(n // 4 for n in plan.initial_active)


def test_what_is_possible_and_what_is_dropped() -> None:
    schedule = UpdateSchedule(end=4, every=1)
    plan = make_plan(rigl.GradualPruning(0.5, schedule=schedule, scope="global"), MLP)
    assert plan.pools == ((1, 2),)
    rows = [plan.active_after(update) for update in range(4)]
    assert plan.possible_counts((1, 2)) == {12 * 8 + 8 * 4, *(sum(row[1:]) for row in rows)}
    assert plan.possible_counts((0,)) == {16 * 12}
    structured = make_plan(rigl.RigL(schedule=schedule, structure=NM(2, 4), drop_fraction=Constant(0.5)), MLP)
    assert structured.grow_counts.tolist() == [[1, 1, 1]]
    assert structured.drop_counts.tolist() == [[layer.size // 4 for layer in MLP]]
    assert make_plan(rigl.DSR(0.5, schedule=schedule), MLP).drop_counts.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("recipe", [rigl.DNW, rigl.DeepR], ids=lambda recipe: recipe.__name__)
def test_a_million_equal_updates_cost_no_memory(recipe: Any) -> None:
    schedule = UpdateSchedule(end=20_000, every=1)
    options = {"drop_fraction": Constant(0.3)}
    tracemalloc.start()
    plan = make_plan(recipe(0.8, schedule=schedule, **options), specs.resnet50())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(plan.keep_counts) == len(plan.targets) == 1
    assert peak < 4_000_000  # a full table of 20,000 updates and 54 layers has 9 million bytes


BILLION = Layer("a", (2**15, 2**15)), Layer("b", (2**15, 2**15 - 1))


@checks("P3")
def test_layers_too_large_to_choose_from_together_are_refused() -> None:
    """Their counts must fit int32."""
    schedule = UpdateSchedule(end=4, every=1)
    fits = make_plan(rigl.DSR(0.5, schedule=schedule), BILLION)
    assert fits.keep_counts.tolist() == [[math.ceil(0.9 * 2**14 * (2**16 - 1))]]
    more = (*BILLION, Layer("c", (2**15, 1)))
    for options, parameter in (
        ({"scope": "global"}, "scope is 'global'"),
        ({"redistribution": "survivors"}, "redistribution is 'survivors'"),
    ):
        recipe = Recipe(0.5, schedule=schedule, **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=rf"{parameter}, and layers 'a' to 'c' have 2,147,483,648 weights: fewer"):
            make_plan(recipe, more)
        make_plan(replace(recipe, dense=["c"]), more)
    make_plan(Recipe(0.5, schedule=schedule), more)


@checks("P3")
def test_layers_too_large_to_share_by_sign_are_refused() -> None:
    schedule = UpdateSchedule(end=4, every=1)
    make_plan(rigl.SETAsPublished(0.5, schedule=schedule), [Layer("a", (2**27 - 1,))])
    with pytest.raises(ValueError, match="drop is 'magnitude_by_sign', and layer 'a' has 134,217,728 weights"):
        make_plan(rigl.SETAsPublished(0.5, schedule=schedule), [Layer("a", (2**27,))])
