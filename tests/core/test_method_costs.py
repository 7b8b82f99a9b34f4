"""Costs of methods: along a ramp, with the dense gradient at every step, and with measured counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rigl_core as rigl
from rigl_core import CostTable, Layer, Network, Uniform, UpdateSchedule, cost_table, make_plan, specs
from rigl_core.costs.flops import PAPER
from rigl_core.testing.checks import checks
from rigl_core.testing.method_trainings import MOVING

MLP = specs.mlp(16, 12, 8, 4)
NETWORK = Network(
    MLP.layers,
    {layer.name: positions for layer, positions in zip(MLP, (5, 3, 1), strict=True)},
    always_dense=(Layer("norm", (7,)),),
)


def operations(network: Network, active: tuple[int, ...]) -> float:
    """Two operations for each active weight and position. All weights of always dense layers count as active."""
    sparse = sum(2 * n * network.positions[layer.name] for n, layer in zip(active, network.layers, strict=True))
    return sparse + sum(2 * layer.size * network.positions[layer.name] for layer in network.always_dense)


def step_by_step(table: CostTable, network: Network, steps: int) -> float:
    """The sum over all steps. A step's cost depends on the active weights before it, and on whether it is dense.

    A step is dense if it needs the dense gradient.
    """
    recipe, plan, flops = table.plan.recipe, table.plan, 0.0
    active, update = plan.initial_active, 0
    for step in range(steps):
        fires = recipe.schedule is not None and recipe.schedule.fires(step)
        f_s = operations(network, active)
        dense = recipe.rule.reads_every_gradient or (fires and recipe.rule.reads_dense_gradient)
        flops += 2 * f_s + (table.f_d if dense else f_s)
        if fires:
            active, update = plan.active_after(update), update + 1
    return flops


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(MOVING)), st.integers(0, 6), st.integers(1, 12), st.integers(1, 3), st.integers(1, 40))
def test_training_costs_the_sum_of_its_steps(method: str, begin: int, length: int, every: int, steps: int) -> None:
    recipe = MOVING[method](0.5, UpdateSchedule(begin + length, every, begin))
    table = cost_table(make_plan(recipe, NETWORK), NETWORK)
    assert table.training_flops(steps) == pytest.approx(step_by_step(table, NETWORK, steps), rel=1e-12)


def test_the_mean_of_every_kind_of_method() -> None:
    schedule = UpdateSchedule(end=30, every=10)

    def training(recipe: rigl.Recipe) -> tuple[float, float]:
        table = cost_table(make_plan(recipe, MLP))
        return table.training(40), table.inference

    for recipe in (rigl.Static(0.5), rigl.SET(0.5, schedule=schedule), rigl.DeepR(0.5, schedule=schedule)):
        cost, s = training(recipe)
        assert cost == pytest.approx(s)
    for recipe in (rigl.SNFS(0.5, schedule=schedule), rigl.DNW(0.5, schedule=schedule)):
        cost, s = training(recipe)
        assert cost == pytest.approx((2 * s + 1) / 3)
    cost, s = training(rigl.RigL(0.5, schedule=schedule))
    assert cost == pytest.approx((40 * 3 * s + 3 * (1 - s)) / (40 * 3))
    cost, s = training(rigl.SNIP(0.5))
    assert cost == pytest.approx((1 + 39 * s) / 40)
    cost, s = training(rigl.OneShotPruning(0.5, at=9))
    assert cost == pytest.approx((10 + 30 * s) / 40)


@pytest.mark.parametrize(("sparsity", "mean"), [(0.8, 0.5707), (0.9, 0.5171)])
def test_gradual_pruning_costs_what_the_papers_ramp_does(sparsity: float, mean: float) -> None:
    """ResNet-50, uniform, pruned every 1,000 steps from 10,000 to 25,000 of 32,000, in the paper's convention."""
    network = specs.resnet50()
    network = dataclasses.replace(network, positions={**network.positions, "conv1": 115**2})
    schedule = UpdateSchedule(begin=10_000, end=25_001, every=1000)
    plan = make_plan(rigl.GradualPruning(sparsity, schedule=schedule, distribution=Uniform()), network)
    table = cost_table(plan, network, convention=PAPER)
    assert table.training(32_000) == pytest.approx(mean, abs=1e-4)


def test_measured_counts_take_the_place_of_planned_ones() -> None:
    """Where sparsity rises, they take the place of the final counts only: counts on the way are not measured."""
    measured = {"fc1.weight": 150, "fc2.weight": 9, "fc3.weight": 1}
    for recipe in (rigl.DSR(0.5, schedule=UpdateSchedule(end=30, every=10)), rigl.LotteryTicket(0.5)):
        table = cost_table(make_plan(recipe, NETWORK), NETWORK, active=measured)
        f_s = operations(NETWORK, (150, 9, 1))
        assert (table.active, table.f_s) == ((150, 9, 1, 7), f_s)
        assert table.training_flops(10) == pytest.approx(30 * f_s)
    f_s, f_d = operations(NETWORK, (150, 9, 1)), operations(NETWORK, (192, 96, 32))
    once = cost_table(make_plan(rigl.SNIP(0.5), NETWORK), NETWORK, active=measured)
    assert once.training_flops(10) == pytest.approx(3 * f_d + 27 * f_s)
    recipe = rigl.GradualPruning(0.5, schedule=UpdateSchedule(end=3, every=1), scope="global")
    plan = make_plan(recipe, NETWORK)
    table = cost_table(plan, NETWORK, active=measured)
    halfway = operations(NETWORK, plan.active_after(1))
    assert table.training_flops(10) == pytest.approx(3 * (2 * f_d + halfway + 7 * f_s))
    assert table.training_flops(3) == pytest.approx(3 * (2 * f_d + halfway))


@checks("P3")
@pytest.mark.parametrize(
    ("active", "message"),
    [
        ({"fc1.weight": 3}, r"they differ in \['fc2.weight', 'fc3.weight'\]. Give one for each of the plan's layers"),
        (
            {"fc1.weight": 3, "fc2.weight": 1, "fc3.weight": 33},
            r"active\['fc3.weight'\] is 33: the layer has 32 weights",
        ),
        ({"fc1.weight": -1, "fc2.weight": 1, "fc3.weight": 1}, r"active\['fc1.weight'\] is -1: .* from 0 to this"),
    ],
)
def test_measured_counts_that_cannot_be_are_refused(active: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cost_table(make_plan(rigl.Static(0.5), MLP), active=active)


BYTES: dict[str, tuple[Any, float, float]] = {
    # one layer of 80 weights, 8 of them active in the end, with Adam: the values held, and whether there is a mask
    "Static": (rigl.Static(0.9), 8 * 3 + 8, 1),
    "dense": (rigl.Static(0.0), 80 * 4, 0),
    "RigL": (rigl.RigL(0.9, schedule=UpdateSchedule(5)), 8 * 3 + 80, 1),
    "SET": (rigl.SET(0.9, schedule=UpdateSchedule(5)), 8 * 3 + 8, 1),
    "SNFS": (rigl.SNFS(0.9, schedule=UpdateSchedule(5)), 8 * 3 + 80 + 80, 1),
    "Deep R": (rigl.DeepR(0.9, schedule=UpdateSchedule(5)), 8 * 3 + 8 + 80, 1),
    "initial values": (rigl.RigL(0.9, schedule=UpdateSchedule(5), grown=rigl.InitialValues()), 8 * 3 + 80 + 80, 1),
    "SNIP": (rigl.SNIP(0.9), 80 * 4, 1),
    "pruning": (rigl.OneShotPruning(0.9, at=3, distribution=Uniform(first_dense=False)), 80 * 4, 1),
    "from half": (
        rigl.GradualPruning(
            0.9, schedule=UpdateSchedule(9, 2), ramp=rigl.CubicRamp(0.5), distribution=Uniform(first_dense=False)
        ),
        40 * 4,
        1,
    ),
    "DNW": (rigl.DNW(0.9, schedule=UpdateSchedule(5)), 80 * 4, 1),
}


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_of_every_kind_of_method(kind: str) -> None:
    recipe, values, masked = BYTES[kind]
    table = cost_table(make_plan(recipe, [Layer("a", (10, 8))]))
    assert table.training_bytes(state_per_weight=2) == (4 * values + 10 * masked,)
    assert table.training_bytes(state_per_weight=2, value_bytes=2) == (2 * values + 10 * masked,)


def test_a_million_updates_are_counted_at_once() -> None:
    schedule = UpdateSchedule(end=1_000_000, every=1)
    table = cost_table(make_plan(rigl.RigL(0.5, schedule=schedule, drop_fraction=rigl.Constant(0.1)), MLP))
    assert table.training_flops(2_000_000) == 1_000_000 * (3 * table.f_s + 2 * table.f_s + table.f_d)
