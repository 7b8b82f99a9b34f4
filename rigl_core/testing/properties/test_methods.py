"""Properties of every method: the oracle's choices, exact counts, zeros, values, memory (rules M1 to M5, M7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis.strategies import SearchStrategy

from rigl_core.model.layers import Layer
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.plan import Plan, make_plan
from rigl_core.testing import method_oracle, oracle, score_oracle
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Array, Harness, Mask
from rigl_core.testing.method_trainings import MOVING, SHADOW, STATIC, method_trainings
from rigl_core.testing.recording import Snapshot, Step, assert_same, assert_same_bits, start, steps
from rigl_core.testing.strategies import STILL, Training

SEEN = tuple(name for name in MOVING if name not in SHADOW)
"""Methods whose weights at the time of an update are those the network has."""


@dataclass
class Memory:
    """What the oracle remembers of a training."""

    training: Training
    plan: Plan
    initial: dict[str, Array]
    momentum: dict[str, Array] = field(default_factory=dict)
    signs: dict[str, list[float]] = field(default_factory=dict)
    updates: int = 0

    def see(self, gradients: dict[str, Array]) -> None:
        """A step's dense gradients."""
        for layer in self.plan.layers:
            old = self.momentum.get(layer.name, np.zeros(layer.shape, np.float32))
            gradient = gradients[layer.name]
            self.momentum[layer.name] = score_oracle.next_momentum(old, gradient, self.training.recipe.momentum)

    def states(self, step: Step, weights: dict[str, Array]) -> dict[str, score_oracle.LayerState]:
        """The layers before an update."""
        targets = self.plan.targets[min(self.updates, len(self.plan.targets) - 1)]
        return {
            layer.name: score_oracle.LayerState(
                layer,
                weights[layer.name].reshape(-1).tolist(),
                step.gradients[layer.name].reshape(-1).tolist(),
                self.momentum[layer.name].reshape(-1).tolist(),
                self.signs[layer.name],
                method_oracle.as_sets(step.before.masks)[layer.name],
                int(target),
            )
            for layer, target in zip(self.plan.layers, targets, strict=True)
        }


def remember(training: Training) -> Memory:
    """What the oracle knows before the first step."""
    plan = make_plan(training.recipe, training.layers)
    memory = Memory(training, plan, {layer.name: training.params[layer.name] for layer in training.layers})
    for layer in training.layers:
        weight = training.params[layer.name].reshape(-1).tolist()
        drawn = score_oracle.random_signs(training.recipe.seed, layer.name, -1, layer.size)
        memory.signs[layer.name] = [np.sign(w) if w else sign for w, sign in zip(weight, drawn, strict=True)]
    return memory


def check_update(memory: Memory, step: Step, weights: dict[str, Array]) -> dict[str, Mask]:
    """The masks are the oracle's; returns what of them keeps its weight and state."""
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


@checks("M1", "M2", "M3", "M4", "M5", "T1", "T2", "T3", "P1")
@pytest.mark.parametrize("method", SEEN)
def test_every_method_chooses_as_the_oracle(harness: Harness, mode: str, method: str) -> None:
    """At every update, in place of a gradient step, from weights that moved before."""

    for_all(method_trainings([method], replaces=True), eager=8, compiled=1)(check_choices)(harness, mode)


def check_choices(harness: Harness, mode: str, training: Training) -> None:
    """Masks and values are the oracle's at every update, which takes the place of a gradient step."""
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
    """With gradient steps between the updates, in which what grew gets a sign of its own, often the other one."""
    schedule = UpdateSchedule(begin=1, end=8, every=2)
    check_choices(harness, mode, replace(training, recipe=replace(training.recipe, schedule=schedule), steps=9))


def check_values(memory: Memory, step: Step, survivors: dict[str, Mask]) -> None:
    """After an update in place of a gradient step: survivors keep their bits, what grew starts as the recipe says."""
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
    """Nothing moves without an update."""
    for name, mask in step.before.masks.items():
        np.testing.assert_array_equal(step.after.masks[name], mask, err_msg=f"{name} at step {step.number}")


def published_trainings_by(method: str | None = None) -> SearchStrategy[Training]:
    """Of all methods that move, or of one, with a learning rate of 0."""
    return method_trainings(tuple(MOVING) if method is None else (method,), optimizers=(STILL,))


def trainings_by(method: str | None = None) -> SearchStrategy[Training]:
    """Of all methods, or of one."""
    return method_trainings((*MOVING, *STATIC) if method is None else (method,))


def starting_trainings_by(method: str | None = None) -> SearchStrategy[Training]:
    """Of methods that start in all the ways there are, or of one."""
    starts = (*STATIC, "RigL", "SNIP", "DNS", "SRigL", "SET, blocks of 2")
    return method_trainings(starts if method is None else (method,))


@checks("M1", "M3", "M5", "M6", "R2", "P1")
@for_all(published_trainings_by, eager=100, compiled=6)
def test_methods_as_published(harness: Harness, mode: str, training: Training) -> None:
    """When they update as they say, with a learning rate of 0, so that the weights are known: the oracle's masks."""
    memory = remember(training)
    for step in steps(start(harness, mode, training), training):
        memory.see(dict(step.gradients))
        weights = memory.initial if training.recipe.shadow else dict(step.before.weights)
        if step.updates:
            check_update(memory, step, weights)
        else:
            assert_masks_stay(step)


@checks("B1", "B9", "B10", "M1", "Z1", "V3", "P2")
@for_all(trainings_by, eager=100, compiled=5)
def test_methods_keep_their_counts_and_resume(harness: Harness, mode: str, training: Training) -> None:
    """With any optimizer: planned counts, groups of a structure, zeros outside, and the same bits after a stop."""
    plan = make_plan(training.recipe, training.layers)
    stop = training.seed % max(training.steps - 3, 1)  # with updates still to come, most often
    session, resumed, updates = start(harness, mode, training), None, 0
    assert_counts(plan, session.masks(), plan.initial_active)
    for step in steps(session, training):
        updates += step.updates
        planned = plan.active_after(updates - 1) if updates else plan.initial_active
        assert_counts(plan, step.after.masks, planned)
        assert_zeros(training, step.after)
        if resumed is not None:
            resumed.step(dict(step.gradients))
            assert_same(Snapshot.of(resumed), step.after)
        elif step.number == stop:
            resumed = start(harness, mode, training)
            resumed.load(session.save())
            assert_same(Snapshot.of(resumed), step.after)


def assert_counts(plan: Plan, masks: Any, planned: Sequence[int]) -> None:
    """Every pool has as many active weights as its layers are planned to have; layers in none are dense."""
    pooled: set[int] = set()
    for pool in plan.pools:
        pooled.update(pool)
        total = sum(int(masks[plan.layers[i].name].sum()) for i in pool)
        assert total == sum(planned[i] for i in pool), f"pool {pool} has {total} active weights"
    for i, layer in enumerate(plan.layers):
        assert i in pooled or masks[layer.name].all(), layer.name
        if i in pooled:
            assert_structure(plan, layer, masks[layer.name])


def assert_structure(plan: Plan, layer: Layer, mask: Mask) -> None:
    """Every group has as many active units as the others, and no unit is active in part."""
    flat = mask.reshape(-1)
    groups = method_oracle.groups_of(plan.recipe, layer)
    assert len({sum(bool(flat[unit[0]]) for unit in group) for group in groups}) == 1, layer.name
    assert all(len({bool(flat[i]) for i in unit}) == 1 for group in groups for unit in group), layer.name


def assert_zeros(training: Training, snapshot: Snapshot) -> None:
    """Weights and optimizer state outside the mask, but for the state of shadow weights."""
    for layer in training.layers:
        outside = ~snapshot.masks[layer.name]
        state = [] if training.recipe.shadow else snapshot.state[layer.name]
        for values in (snapshot.weights[layer.name], *state):
            assert not values[outside].any(), layer.name


@checks("N2", "M2", "M7", "P1")
@for_all(starting_trainings_by, eager=80, compiled=5)
def test_initial_topologies_are_the_oracles(harness: Harness, mode: str, training: Training) -> None:
    """Random or by given scores, by layer or over all layers, in groups or freely, dense at the start of a ramp."""
    assert method_oracle.as_sets(start(harness, mode, training).masks()) == initial_masks(training)


def initial_masks(training: Training) -> dict[str, set[int]]:
    """Active flat positions, by the oracle."""
    recipe, plan = training.recipe, make_plan(training.recipe, training.layers)
    given = training.scores
    together = recipe.scope == "global" and given is not None
    expected = {layer.name: set(range(layer.size)) for layer in plan.layers}
    scores = {}
    for layer in plan.layers:
        drawn = oracle.random_scores(oracle.random_key(recipe.seed, layer.name, -1), layer.size)
        scores[layer.name] = list(map(float, drawn)) if given is None else given[layer.name].reshape(-1).tolist()
    if together:
        pairs = [(name, i) for name in scores for i in range(len(scores[name]))]
        best = sorted(pairs, key=lambda pair: -scores[pair[0]][pair[1]])[: sum(plan.initial_active)]
        expected = {name: {i for owner, i in best if owner == name} for name in scores}
    else:
        for layer, active in zip(plan.layers, plan.initial_active, strict=True):
            if active < layer.size:
                groups = method_oracle.groups_of(recipe, layer)
                units = active // (len(groups) * len(groups[0][0]))
                chosen = [
                    group[i]
                    for group in groups
                    for i in oracle.largest(
                        [method_oracle.unit_score(recipe.initial.name, scores[layer.name], unit) for unit in group],
                        range(len(group)),
                        units,
                    )
                ]
                expected[layer.name] = {i for unit in chosen for i in unit}
    return expected
