"""Properties of every method: the oracle's choices, exact counts, zeros, values, resuming (rules M1 to M5, M7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis.strategies import SearchStrategy

from rigl_core.model.layers import Layer
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.plan import Plan, make_plan
from rigl_core.testing import group_oracle, method_oracle, score_oracle
from rigl_core.testing.checks import checks, for_all, in_turn, is_fast, runs_where
from rigl_core.testing.harness import Array, Harness, Mask, Session
from rigl_core.testing.method_memory import Memory, initial_masks, remember
from rigl_core.testing.method_trainings import MOVING, SHADOW, STATIC, method_trainings
from rigl_core.testing.recording import Recorded, Step, assert_same, assert_same_bits, recorded, start, steps
from rigl_core.testing.strategies import SILENCES, STILL, Training

SEEN = tuple(name for name in MOVING if name not in SHADOW)
"""Moving methods without shadow weights: an update chooses by the weights that the network has."""
STARTS = (*STATIC, "RigL", "SNIP", "DNS", "SRigL", "SET, blocks of 2")
"""Methods that cover all ways to start."""


def check_update(memory: Memory, step: Step, weights: dict[str, Array]) -> dict[str, Mask]:
    """Assert that an update's masks are the oracle's.

    Returns:
        For each layer, a mask of the connections that keep their weight and optimizer state.
    """
    recipe, plan, number = memory.training.recipe, memory.plan, memory.updates
    assert recipe.schedule is not None
    states = memory.states(step, weights)
    pools = [[states[plan.layers[i].name] for i in pool] for pool in plan.pools]
    fraction = f"{recipe.drop_fraction.fraction(recipe.schedule.progress(number)):.12f}"
    moved = method_oracle.update(recipe, pools, fraction, number)
    survivors = {}
    for layer in plan.layers:
        before, after = (masks[layer.name].reshape(-1) for masks in (step.before.masks, step.after.masks))
        old = set(np.flatnonzero(before).tolist())
        new, kept = moved.get(layer.name, (old, old))
        actual = set(np.flatnonzero(after).tolist())
        assert actual == new, f"{layer.name} at step {step.number}: {sorted(actual)}, by the oracle {sorted(new)}"
        survive = kept if recipe.regrown == "reset" else old & new
        survivors[layer.name] = np.isin(np.arange(layer.size), sorted(survive)).reshape(layer.shape)
        drawn = score_oracle.random_signs(recipe.seed, layer.name, number, layer.size)
        for i in new - survive:
            memory.signs[layer.name][i] = drawn[i]
    memory.updates += 1
    return survivors


def check_first_update(memory: Memory, session: Session, gradients: dict[str, Array]) -> Step:
    """Make step 0 with these gradients, and assert that its masks are the oracle's."""
    memory.see(gradients)
    step = recorded(session, 0, gradients, updates=True)
    check_update(memory, step, dict(step.before.weights))
    return step


@runs_where(in_turn(SEEN))
@checks("M1", "M2", "M3", "M4", "M5", "M10", "M11", "M12", "T1", "T2", "T3", "T6", "P1")
@pytest.mark.parametrize("method", SEEN)
def test_every_method_chooses_as_the_oracle(harness: Harness, mode: str, method: str) -> None:
    """Every update has the oracle's masks and values. A layer without information stays, in most cases."""
    silences: tuple[str, ...] = SILENCES if harness.unused_layers else SILENCES[1:]
    if not is_fast(harness, mode):
        silences = (silences[len(method) % len(silences)],)
    for silence in silences:
        trainings = method_trainings([method], replaces=True, silence=silence)
        for_all(trainings, eager=4, compiled=1)(check_choices)(harness, mode)


def check_choices(harness: Harness, mode: str, training: Training) -> None:
    """Assert that masks and values are the oracle's at every update, which takes the place of a gradient step."""
    memory = remember(training)
    for step in steps(start(harness, mode, training), training):
        memory.see(dict(step.gradients))
        if step.updates:
            check_values(memory, step, check_update(memory, step, dict(step.before.weights)))
        else:
            assert_masks_stay(step)


@checks("M4", "N1")
@for_all(method_trainings(["Deep R"], replaces=True), eager=15, compiled=1)
def test_what_grows_draws_a_sign(harness: Harness, mode: str, training: Training) -> None:
    """A grown connection draws a sign; in gradient steps between the updates its weight often gets the other sign."""
    schedule = UpdateSchedule(begin=1, end=8, every=2)
    check_choices(harness, mode, replace(training, recipe=replace(training.recipe, schedule=schedule), steps=9))


def check_values(memory: Memory, step: Step, survivors: dict[str, Mask]) -> None:
    """Assert that survivors keep their bits, and that grown connections start with the values of the recipe."""
    recipe, number = memory.training.recipe, memory.updates - 1
    states = memory.states(step, dict(step.before.weights))
    for layer in memory.plan.layers:
        before, after = step.before, step.after
        grew = after.masks[layer.name] & ~before.masks[layer.name]
        initial = memory.initial[layer.name].reshape(-1).tolist()
        values = score_oracle.grown_values(recipe, states[layer.name], number, initial)
        grown = np.array(values, np.float32).reshape(layer.shape)
        zeros = np.zeros(layer.shape, np.float32)
        expected = np.where(survivors[layer.name], before.weights[layer.name], np.where(grew, grown, zeros))
        actual = after.weights[layer.name]
        np.testing.assert_array_equal(actual, expected, err_msg=f"{layer.name} at step {step.number}")
        for old, new in zip(before.state[layer.name], after.state[layer.name], strict=True):
            kept = np.where(survivors[layer.name], old, np.zeros_like(old))
            assert_same_bits(new, kept, f"optimizer state of {layer.name} at step {step.number}")


def assert_masks_stay(step: Step) -> None:
    """Assert that no mask changed in this step."""
    for name, mask in step.before.masks.items():
        np.testing.assert_array_equal(step.after.masks[name], mask, err_msg=f"{name} at step {step.number}")


def published_trainings_by(method: str | None = None) -> SearchStrategy[Training]:
    """Trainings by any method that moves, or by one method, with a learning rate of 0."""
    return method_trainings(tuple(MOVING) if method is None else (method,), optimizers=(STILL,))


def trainings_by(method: str | None = None) -> SearchStrategy[Training]:
    """Trainings by any method, or by one method."""
    return method_trainings((*MOVING, *STATIC) if method is None else (method,))


def starting_trainings_by(method: str | None = None) -> SearchStrategy[Training]:
    """Trainings by methods that cover all ways to start, or by one method."""
    return method_trainings(STARTS if method is None else (method,))


@checks("M1", "M3", "M5", "M6", "R2", "P1")
@for_all(published_trainings_by, eager=5, compiled=3, methods=tuple(MOVING))
def test_methods_as_published(harness: Harness, mode: str, training: Training) -> None:
    """With the method's own ``on_update``, masks are the oracle's. The learning rate is 0, so the weights are known."""
    memory = remember(training)
    for step in steps(start(harness, mode, training), training):
        memory.see(dict(step.gradients))
        weights = memory.initial if training.recipe.shadow else dict(step.before.weights)
        if step.updates:
            check_update(memory, step, weights)
        else:
            assert_masks_stay(step)


@checks("B1", "B9", "B10", "M1", "M12", "Z1", "V3", "P2")
@for_all(trainings_by, eager=5, compiled=3, methods=(*MOVING, *STATIC))
def test_methods_keep_their_counts_and_resume(harness: Harness, mode: str, training: Training) -> None:
    """With any optimizer, counts are as planned, zeros stay outside the mask, and resuming gives the same bits."""
    plan = make_plan(training.recipe, training.layers)
    stop = training.seed % max(training.steps - 3, 1)  # early: most often, updates follow
    session, resumed, updates = start(harness, mode, training), None, 0
    assert_counts(plan, session.masks(), plan.initial_active)
    for step in steps(session, training):
        updates += step.updates
        planned = plan.active_after(updates - 1) if updates else plan.initial_active
        assert_counts(plan, step.after.masks, planned)
        assert_zeros(training, step.after)
        if resumed is not None:
            resumed.step(dict(step.gradients))
            assert_same(Recorded.of(resumed), step.after)
        elif step.number == stop:
            resumed = start(harness, mode, training)
            resumed.load(session.save())
            assert_same(Recorded.of(resumed), step.after)


def assert_counts(plan: Plan, masks: Any, planned: Sequence[int]) -> None:
    """Assert that every pool has its planned number of active weights, and that layers outside all pools are dense."""
    pooled: set[int] = set()
    for pool in plan.pools:
        pooled.update(pool)
        total, wanted = sum(int(masks[plan.layers[i].name].sum()) for i in pool), sum(planned[i] for i in pool)
        if plan.recipe.gamma_sal is not None:
            wanted = shared_by_neurons(plan, plan.layers[pool[0]], masks[plan.layers[pool[0]].name], wanted)
        assert total == wanted, f"pool {pool} has {total} active weights"
    for i, layer in enumerate(plan.layers):
        assert i in pooled or masks[layer.name].all(), layer.name
        if i in pooled:
            assert_structure(plan, layer, masks[layer.name])


def shared_by_neurons(plan: Plan, layer: Layer, mask: Mask, planned: int) -> int:
    """The number of connections of a layer whose neurons that are left share the planned number (M12)."""
    left = sum(any(mask.reshape(-1)[unit[0]] for unit in group) for group in group_oracle.groups_of(plan.recipe, layer))
    return left * (planned // left)


def assert_structure(plan: Plan, layer: Layer, mask: Mask) -> None:
    """Assert that all groups have the same number of active units, and that no unit is partly active."""
    flat = mask.reshape(-1)
    groups = group_oracle.groups_of(plan.recipe, layer)
    numbers = {sum(bool(flat[unit[0]]) for unit in group) for group in groups}
    assert len(numbers - ({0} if plan.recipe.gamma_sal is not None else set())) == 1, layer.name
    assert all(len({bool(flat[i]) for i in unit}) == 1 for group in groups for unit in group), layer.name


def assert_zeros(training: Training, snapshot: Recorded) -> None:
    """Assert that weights and optimizer state outside the mask are 0, except the state of shadow weights."""
    for layer in training.layers:
        outside = ~snapshot.masks[layer.name]
        state = [] if training.recipe.shadow else snapshot.state[layer.name]
        for values in (snapshot.weights[layer.name], *state):
            assert not values[outside].any(), layer.name


@checks("N2", "M2", "M7", "P1")
@for_all(starting_trainings_by, eager=10, compiled=3, methods=STARTS)
def test_initial_topologies_are_the_oracles(harness: Harness, mode: str, training: Training) -> None:
    """Initial masks are the oracle's, by random or given scores, for each layer or all, with structures and ramps."""
    assert method_oracle.as_sets(start(harness, mode, training).masks()) == initial_masks(training)
