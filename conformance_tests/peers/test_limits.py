"""Limits of a library: what it does not offer is left out, and told with its reason; and the table that shows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance_tests.harnesses.numpy import NumPyHarness
from conformance_tests.peers.table import breaches, rule_table, worst
from rigl_core import Layer, Recipe
from rigl_core.methods import RigL
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing import SGD, Harness, NotOffered, Training, for_all, start, trainings

SEEN: list[Recipe] = []


class Slow(NumPyHarness):
    """Updates at every third step, and not at sparsity 0.9."""

    name = "slow"
    xp = None

    def offered(self, recipe: Recipe, layers: tuple[Layer, ...]) -> Recipe:
        assert recipe.schedule is not None
        if recipe.sparsity == 0.9:
            raise NotOffered("a sparsity of 0.9")
        return replace(recipe, schedule=UpdateSchedule(begin=2, end=5, every=3))


@for_all(trainings(optimizers=(SGD,)), eager=30)
def sees(harness: Harness, mode: str, training: Training) -> None:
    SEEN.append(training.recipe)
    session = start(harness, mode, training)
    session.step(training.gradients(0))


@for_all(trainings(), eager=5)
def offers_nothing(harness: Harness, mode: str, training: Training) -> None:
    raise NotOffered("a state to save")


def test_a_property_runs_on_the_recipes_that_a_library_offers() -> None:
    SEEN.clear()
    sees(Slow(), "eager")
    assert {(recipe.schedule.begin, recipe.schedule.every) for recipe in SEEN if recipe.schedule} == {(2, 3)}
    assert 0.9 not in {recipe.sparsity for recipe in SEEN}


def test_a_property_without_an_offered_case_says_why() -> None:
    with pytest.raises(NotOffered, match="a state to save"):
        offers_nothing(NumPyHarness(), "eager")


def test_a_recipe_beyond_the_limits_is_not_started() -> None:
    recipe = RigL(0.5, schedule=UpdateSchedule(end=9, every=1))
    with pytest.raises(NotOffered, match="slow has only schedule="):
        Slow().start({}, [], recipe, SGD)


def test_without_a_namespace_there_are_no_single_updates() -> None:
    with pytest.raises(NotOffered, match="slow has no function for a single update"):
        Slow().random_scores((1, 2), 3, mode="eager")


def test_the_table() -> None:
    """One property that breaks a rule decides, and one that is not offered says nothing."""
    assert worst(["kept", "broken", "not offered"]) == "broken"
    assert worst(["not offered", "kept"]) == "kept"
    found = [{"rules": ["T1"], "outcome": "broken", "text": "drops a large weight", "case": "drop", "property": "drop"}]
    records = {"ours": [{**found[0], "outcome": "kept"}], "theirs": found}
    assert rule_table(records, {"T1": "Drop", "T2": "Grow"})[2:] == ["| [T1](contract.md). Drop | yes | **no** |"]
    assert breaches(records, {"T1": "Drop"})[-2] == "- **T1**: drops a large weight."
