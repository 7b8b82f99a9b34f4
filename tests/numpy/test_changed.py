"""A training that goes on under another recipe on purpose: `changed` says in what, and the rest is still refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rigl_backends.numpy import SGD, SparseTraining, sparsify
from rigl_core import NM, Recipe, RigL, SRigL, UpdateSchedule, methods
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=40, every=4)
Params = dict[str, npt.NDArray[Any]]


def start(recipe: Recipe) -> tuple[Params, SGD, SparseTraining]:
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=(16, 24)) for name in ("a", "b", "c")}
    optimizer = SGD(params, 0.01, momentum=0.9)
    return params, optimizer, sparsify(params, optimizer, recipe, axes={"*": ((1,), (0,))})


def train(params: Params, optimizer: SGD, numbers: range) -> None:
    for number in numbers:
        rng = np.random.default_rng(number)
        optimizer.step({name: rng.normal(size=param.shape) for name, param in params.items()})


def go_on(recipe: Recipe, other: Recipe, changed: list[str], stop: int = 7) -> tuple[Params, SGD, SparseTraining]:
    """Train under a recipe, stop, and load everything under another recipe, without a step."""
    params, optimizer, sparse = start(recipe)
    train(params, optimizer, range(stop))
    again, own, resumed = start(other)
    resumed.load_state_dict(sparse.state_dict(), changed=changed)
    for name, param in params.items():
        again[name][...] = param
    own.state = {name: {key: value.copy() for key, value in state.items()} for name, state in optimizer.state.items()}
    return again, own, resumed


@checks("P2")
def test_a_longer_schedule() -> None:
    longer = RigL(0.8, schedule=replace(SCHEDULE, end=80))
    params, optimizer, resumed = go_on(RigL(0.8, schedule=SCHEDULE), longer, ["schedule"])
    assert resumed.step == 7
    before = resumed.masks
    train(params, optimizer, range(7, 8))
    for name, mask in resumed.masks.items():  # step 7 has no update, and the counts fit
        np.testing.assert_array_equal(mask, before[name])
    train(params, optimizer, range(8, 60))
    assert [int(mask.sum()) for mask in resumed.masks.values()] == list(resumed.plan.active)


RECIPES: dict[str, tuple[Recipe, Recipe]] = {
    "sparser": (RigL(0.5, schedule=SCHEDULE), RigL(0.8, schedule=SCHEDULE)),
    "denser": (RigL(0.8, schedule=SCHEDULE), RigL(0.5, schedule=SCHEDULE)),
    "all layers": (RigL(0.5, schedule=SCHEDULE, scope="global"), RigL(0.8, schedule=SCHEDULE, scope="global")),
    "constant fan-in": (SRigL(0.5, schedule=SCHEDULE), SRigL(0.75, schedule=SCHEDULE)),
    "Static": (methods.Static(0.5), methods.Static(0.8)),
    "SNFS": (methods.SNFS(0.5, schedule=SCHEDULE), methods.SNFS(0.8, schedule=SCHEDULE)),
}


@checks("P2", "B1", "Z1")
@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("stop", [7, 8])  # an ordinary step, and an update, comes next
def test_another_sparsity(kind: str, stop: int) -> None:
    """The next step brings the masks to the new counts: the largest weights stay."""
    old, new = RECIPES[kind]
    params, optimizer, resumed = go_on(old, new, ["sparsity"], stop)
    before, weights = resumed.masks, {name: param.copy() for name, param in params.items()}
    train(params, optimizer, range(stop, stop + 1))
    assert resumed.table.total_active == sum(resumed.plan.active)
    for name, mask in resumed.masks.items():
        assert not params[name][~mask].any()
        if kind in ("sparser", "Static") and stop == 7:
            assert not (mask & ~before[name]).any()
            assert np.abs(weights[name][mask]).min() >= np.abs(weights[name][before[name] & ~mask]).max()
        if kind == "denser" and stop == 7:
            assert not (before[name] & ~mask).any()
    train(params, optimizer, range(stop + 1, 40))
    assert resumed.table.total_active == sum(resumed.plan.active)


@checks("P2", "P3")
def test_all_differences_are_listed_and_those_that_change_nothing_are_offered() -> None:
    state = start(RigL(0.8, schedule=SCHEDULE))[2].state_dict()
    other = start(RigL(0.5, schedule=SCHEDULE, seed=3))[2]
    with pytest.raises(
        ValueError,
        match=r"another recipe: seed was 0 and is 3; sparsity was 0.8 and is 0.5\..*changed=\['seed', 'sparsity'\]",
    ):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match=r"another recipe: seed was 0 and is 3\."):
        other.load_state_dict(state, changed=["sparsity"])
    structured = start(RigL(schedule=SCHEDULE, structure=NM(2, 4)))[2]
    with pytest.raises(ValueError, match=r"structure was.*Resume with the recipe that it was saved under\.$"):
        structured.load_state_dict(state)


@checks("P3")
def test_what_cannot_change_is_refused() -> None:
    sparse = start(RigL(0.8, schedule=SCHEDULE))[2]
    with pytest.raises(ValueError, match="changed names 'structure': only"):
        sparse.load_state_dict(sparse.state_dict(), changed=["structure"])
    with pytest.raises(TypeError, match="changed is 'seed': it must be a list"):
        sparse.load_state_dict(sparse.state_dict(), changed="seed")
