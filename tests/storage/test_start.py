"""A recipe that begins with given masks: whose numbers it takes, and which masks it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rigl_core as rigl
from rigl_core import NM, Layer, PerLayer, Recipe, RigL, Static, Uniform, UpdateSchedule, make_plan
from rigl_core.adapter import active_count, start_from
from rigl_core.storage import save
from rigl_core.storage.start import _sparsity
from rigl_core.testing.checks import checks
from tests.storage.topologies import random_topology

SCHEDULE = UpdateSchedule(end=90, every=10)
LAYERS = (Layer("a[0]", (8, 20), (1,), (0,)), Layer("b", (12, 8), (1,), (0,)), Layer("c", (4, 12), (1,), (0,)))


def masks_of(*counts: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        layer.name: rng.permutation(np.arange(layer.size) < count).reshape(layer.shape)
        for layer, count in zip(LAYERS, counts, strict=True)
    }


def begun(recipe: Recipe, masks: Any) -> rigl.Plan:
    own, scores = start_from(recipe, LAYERS, masks)
    assert scores is not None
    assert Recipe.from_json(own.to_json()) == own
    return make_plan(own, LAYERS)


@checks("N3", "B1")
@given(st.integers(1, 2**31 - 1), st.data())
def test_a_sparsity_gives_any_number_exactly(size: int, data: st.DataObject) -> None:
    active = data.draw(st.integers(0, size))
    assert active_count(_sparsity(active, size), size) == active


@checks("N3", "B1")
@given(st.tuples(*(st.integers(0, layer.size) for layer in LAYERS)))
def test_a_plan_has_the_numbers_of_the_masks(counts: tuple[int, ...]) -> None:
    """Also where layers choose or grow together, or some are pinned by name or by the distribution."""
    masks = masks_of(*counts)
    for recipe in (Static(), RigL(schedule=SCHEDULE), rigl.DSR(schedule=SCHEDULE), rigl.SNFS(schedule=SCHEDULE)):
        plan = begun(recipe, masks)
        assert plan.active == plan.initial_active == counts
    own = RigL(schedule=SCHEDULE, distribution=Uniform())
    pinned = begun(own, masks)
    assert pinned.active == counts
    assert dict(pinned.recipe.layer_sparsity).keys() == {"a[[]0]"}


@checks("N3")
def test_a_recipe_with_a_sparsity_wants_as_many_in_all() -> None:
    recipe = RigL(0.5, schedule=SCHEDULE)
    planned = make_plan(recipe, LAYERS).active
    kept = begun(recipe, masks_of(*planned))
    assert (kept.recipe.sparsity, kept.recipe.distribution) == (0.5, recipe.distribution)
    moved = planned[0] - 9, planned[1] + 9, planned[2]
    assert begun(recipe, masks_of(*moved)).active == moved
    with pytest.raises(ValueError, match="initial has 151 active weights, and the recipe begins with 152: leave spars"):
        start_from(recipe, LAYERS, masks_of(planned[0] - 1, *planned[1:]))


@checks("N3")
def test_the_recipe_of_a_file_goes_on_with_other_masks() -> None:
    """Its numbers are those of the masks that it began with, maybe under other names."""
    own, _ = start_from(RigL(schedule=SCHEDULE), [Layer("old", (9, 9), (1,), (0,))], {"old": np.eye(9) > 0})
    plan = begun(Recipe.from_dict(own.to_dict()), masks_of(1, 2, 3))
    assert plan.active == (1, 2, 3)


@checks("N3", "P3")
@pytest.mark.parametrize(
    ("recipe", "masks", "message"),
    [
        (RigL(0.5, schedule=SCHEDULE), [1], "initial is a list: give a Topology, the path of its file, or bool arrays"),
        (Static(), {"b": np.ones((12, 8), bool)}, r"initial does not fit the model: masks has none for layer 'a\[0\]'"),
        (Static(), random_topology(), "initial does not fit the model: topology does not fit: it has no mask for"),
        (Static(), {**masks_of(1, 2, 3), "d": np.ones(2, bool)}, "masks has 'd', which no layer is called"),
        (Static(dense=["b"]), masks_of(1, 2, 3), "initial has 2 active weights in layer 'b', and the recipe begins"),
        (Static(layer_sparsity={"c": 0.5}), masks_of(1, 2, 3), "initial has 3 active weights in layer 'c', and the re"),
        (
            Static(distribution=PerLayer({"*": 0.5})),
            masks_of(1, 2, 3),
            "initial has 6 active weights, and the recipe b",
        ),
        (
            rigl.GradualPruning(0.9, schedule=SCHEDULE),
            masks_of(1, 2, 3),
            "gradual pruning has a ramp, which begins with",
        ),
        (Static(structure=NM(2, 4)), masks_of(1, 2, 3), r"initial has 1 active weights in layer 'a\[0\]', and the rec"),
        (Static(structure=NM(2, 4)), masks_of(80, 48, 24), "that is not of the structure NM"),
        (Static(structure=rigl.ConstantFanIn()), masks_of(80, 48, 24), "that is not of the structure ConstantFanIn"),
    ],
)
def test_masks_that_do_not_fit_are_refused(recipe: Recipe, masks: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        start_from(recipe, LAYERS, masks)


@checks("N3")
@pytest.mark.parametrize("structure", [NM(2, 4), rigl.ConstantFanIn(), rigl.Blocks(4)])
def test_masks_of_a_structure_fit(structure: Any) -> None:
    """In the layout of another framework, too."""
    masks: Mapping[str, Any] = {
        layer.name: np.kron((np.indices((layer.n_out // 4, layer.n_in // 4)).sum(0) % 2), np.ones((4, 4))) > 0
        for layer in LAYERS
    }
    if not isinstance(structure, rigl.Blocks):
        masks = {layer.name: np.indices(layer.shape).sum(0) % 2 > 0 for layer in LAYERS}
    recipe = RigL(schedule=SCHEDULE, structure=structure)
    assert begun(recipe, masks).active == tuple(int(mask.sum()) for mask in masks.values())
    turned = tuple(Layer(layer.name, layer.shape[::-1], (0,), (1,)) for layer in LAYERS)
    scores = start_from(recipe, turned, rigl.storage.Topology(LAYERS, masks))[1]
    assert scores is not None
    np.testing.assert_array_equal(scores["b"], masks["b"].T)


def test_nothing_given_changes_nothing() -> None:
    assert start_from(Static(0.5), LAYERS, None, {"a": 1}) == (Static(0.5), {"a": 1})
    with pytest.raises(ValueError, match="scores and initial are both given: leave out scores"):
        start_from(rigl.LotteryTicket(0.5), LAYERS, masks_of(1, 2, 3), {})


@checks("N3", "P3")
def test_a_path_is_read(tmp_path: Path) -> None:
    topology = rigl.storage.Topology(LAYERS, masks_of(10, 20, 30))
    save(tmp_path / "x", topology)
    for path in (tmp_path / "x", str(tmp_path / "x")):
        own, scores = start_from(Static(), LAYERS, path)
        assert scores is not None
        assert own.distribution == rigl.Given({"a[0]": 10, "b": 20, "c": 30})
        np.testing.assert_array_equal(scores["b"], topology.masks["b"])
    with pytest.raises(FileNotFoundError):
        start_from(Static(), LAYERS, tmp_path / "y")


@checks("P3")
def test_counts_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"counts\['a'\] is 0.5: it must be a whole number"):
        rigl.Given({"a": 0.5})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="counts says nothing of layer 'b'"):
        make_plan(Static(0.5, distribution=rigl.Given({"a[0]": 3})), LAYERS)
