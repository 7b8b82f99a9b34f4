"""Structures: groups are the same in every memory layout, and masks survive the way to units and back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rigl_core as rigl
from rigl_backends.numpy import SGD, sparsify
from rigl_core import NM, Blocks, ConstantFanIn, Layer, Recipe, Static, UpdateSchedule, make_plan
from rigl_core.adapter import numpy_namespace as xp
from rigl_core.parts.structures import Arrangement, Structure, Unstructured
from rigl_core.testing.checks import checks

STRUCTURES: list[Structure] = [ConstantFanIn(), NM(2, 4), NM(1, 2), NM(3, 3), Blocks(2), Blocks(1)]

LAYERS = [
    Layer("fc", (4, 12), in_axes=(1,), out_axes=(0,)),
    Layer("fc, turned", (12, 4), in_axes=(0,), out_axes=(1,)),
    Layer("conv, OIHW", (2, 12, 3, 2), in_axes=(1,), out_axes=(0,)),
    Layer("conv, HWIO", (3, 2, 12, 2), in_axes=(2,), out_axes=(3,)),
    Layer("conv of one axis", (4, 12, 3), in_axes=(1,), out_axes=(0,)),
    Layer("grouped conv", (6, 12, 2, 2), in_axes=(1,), out_axes=(0,), groups=3),
    Layer("transposed conv", (12, 4, 2, 2), in_axes=(0,), out_axes=(1,)),
]


def arranged(structure: Structure, layer: Layer) -> Arrangement:
    arrangement = structure.arrangement(layer)
    assert arrangement is not None
    return arrangement


def units_of(structure: Structure, layer: Layer) -> npt.NDArray[Any]:
    """Int array (size, 2): the numbers of the group and of the unit of each flat position, by the code."""
    arrangement = arranged(structure, layer)
    numbers = np.zeros((layer.size, 2), int)
    for group, unit in product(range(arrangement.groups), range(arrangement.units)):
        mask = np.zeros((arrangement.groups, arrangement.units), np.bool_)
        mask[group, unit] = True
        numbers[arrangement.mask_by_weight(mask, xp=xp)] = group, unit
    return numbers


def reading(structure: Any, layer: Layer) -> Iterator[tuple[Any, Any]]:
    """For each flat position, the keys of its group and of its unit, by the words of the docstrings."""
    for place in product(*map(range, layer.shape)):
        (output,), (given_,) = ([place[axis] for axis in axes] for axes in (layer.out_axes, layer.in_axes))
        kernel = tuple(place[axis] for axis in layer.kernel_axes)
        if structure.kind == "constant_fan_in":
            yield output, (given_, kernel)
        elif structure.kind == "n_of_m":
            yield (output, kernel, given_ // structure.m), given_ % structure.m
        else:
            yield (), (output // structure.size, given_ // structure.size, kernel)


def parts(keys: list[Any]) -> list[set[int]]:
    """The positions of each key, in the order in which keys appear."""
    found: dict[Any, set[int]] = {}
    for position, key in enumerate(keys):
        found.setdefault(key, set()).add(position)
    return list(found.values())


@checks("B10", "T3")
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_groups_and_units_are_those_of_the_words(structure: Structure, layer: Layer) -> None:
    """Units are numbered in the order of their first weights, so that ties go to the lower flat index."""
    arrangement, numbers = arranged(structure, layer), units_of(structure, layer)
    words = list(reading(structure, layer))
    groups, units = parts([group for group, _ in words]), parts(words)
    assert sorted(map(sorted, parts(numbers[:, 0].tolist()))) == sorted(map(sorted, groups))
    assert sorted(map(sorted, parts(list(map(tuple, numbers.tolist()))))) == sorted(map(sorted, units))
    assert {len(group) for group in groups} == {arrangement.units * arrangement.unit}
    assert {len(unit) for unit in units} == {arrangement.unit}
    for group in groups:
        firsts = {int(numbers[i, 1]): i for i in sorted(group, reverse=True)}
        assert [firsts[unit] for unit in sorted(firsts)] == sorted(firsts.values())


@checks("B10")
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_masks_and_scores_come_back_from_units(structure: Structure, layer: Layer) -> None:
    arrangement, rng = arranged(structure, layer), np.random.default_rng(0)
    units = rng.random((arrangement.groups, arrangement.units)) < 0.5
    weights = arrangement.mask_by_weight(units, xp=xp)
    assert (weights.shape, weights.dtype) == ((layer.size,), np.bool_)
    np.testing.assert_array_equal(arrangement.mask_by_unit(weights, xp=xp), units)
    scores, numbers = rng.integers(0, 9, layer.size).astype(np.float32), units_of(structure, layer)
    sums = np.zeros(units.shape, np.float32)
    np.add.at(sums, tuple(numbers.T), scores)
    np.testing.assert_array_equal(arrangement.scores_by_unit(scores, xp=xp), sums)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize(("one", "other"), [("conv, OIHW", "conv, HWIO"), ("fc", "fc, turned")])
def test_groups_are_the_same_in_either_layout(structure: Structure, one: str, other: str) -> None:
    """The same weights, stored in another axis order, are in the same groups and units."""
    layers = {layer.name: layer for layer in LAYERS}
    axes = (2, 3, 1, 0) if len(layers[one].shape) == 4 else (1, 0)
    own, others = (units_of(structure, layers[name]) for name in (one, other))
    places = np.arange(layers[one].size).reshape(layers[one].shape).transpose(axes).reshape(-1)
    assert parts(others[:, 0].tolist()) == parts(own[places, 0].tolist())
    assert parts(list(map(tuple, others.tolist()))) == parts(list(map(tuple, own[places].tolist())))


@given(st.sampled_from(STRUCTURES), st.sampled_from(LAYERS), st.integers(0, 300))
def test_rounded_counts_are_the_nearest_that_fit(structure: Structure, layer: Layer, active: int) -> None:
    arrangement, active = arranged(structure, layer), min(active, layer.size)
    step = arrangement.groups * arrangement.unit
    possible = range(0, layer.size + 1, step)
    rounded = arrangement.rounded(active)
    assert rounded in possible
    assert abs(rounded - active) == min(abs(count - active) for count in possible)


@checks("P3")
@pytest.mark.parametrize(
    ("structure", "layer", "why"),
    [
        (NM(2, 4), Layer("a", (5, 6), (1,), (0,)), "its 6 inputs are no multiple of m=4"),
        (NM(2, 4), Layer("a", (8, 1, 3, 3), (1,), (0,), groups=8, depthwise=True), "its 1 inputs are no multiple"),
        (Blocks(4), Layer("a", (4, 6), (1,), (0,)), "its axis 1 of size 6 is no multiple of size=4"),
        (Blocks(4), Layer("a", (8, 2, 4), (0,), (1, 2)), "blocks need one in axis and one out axis"),
        (Blocks(4), Layer("a", (8, 8)), "blocks need one in axis and one out axis"),
        (
            ConstantFanIn(),
            Layer("a", (8, 2, 3, 3), (0,), (1,), groups=2, grouped_axes="out"),
            "constant fan-in does not know grouped transposed convolutions",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused_by_name(structure: Structure, layer: Layer, why: str) -> None:
    recipe = Static(None if structure.sparsity else 0.5, structure=structure)
    with pytest.raises(ValueError, match=rf"structure does not fit layer 'a' of shape .*: {why}.*dense=\[\.\.\.\]"):
        make_plan(recipe, [layer, Layer("b", (8, 8), (1,), (0,))])
    kept = make_plan(Static(recipe.sparsity, structure=structure, dense=["a"]), [layer, Layer("b", (8, 8), (1,), (0,))])
    assert kept.active == (layer.size, 32)


@checks("P3")
@pytest.mark.parametrize("structure", [NM(2, 4), ConstantFanIn()])
def test_unknown_axes_are_refused_by_name(structure: Structure) -> None:
    recipe = Static(None if structure.sparsity else 0.5, structure=structure)
    with pytest.raises(ValueError, match=r"(in|out)_axes of layer 'a' is unknown: describe the layer with its"):
        make_plan(recipe, [Layer("a", (8, 8))])


@checks("P3", "B10")
def test_a_structure_with_a_sparsity_of_its_own() -> None:
    layers = [Layer("a", (4, 8), (1,), (0,)), Layer("b", (4, 4), (1,), (0,))]
    with pytest.raises(ValueError, match=r"sparsity=0\.5 is given, and the n_of_m structure has its own: leave it out"):
        make_plan(Static(0.5, structure=NM(2, 4)), layers)
    assert make_plan(Static(structure=NM(1, 4), layer_sparsity={"b": 0.5}), layers).active == (8, 8)
    schedule = UpdateSchedule(end=9, every=2)
    plan = make_plan(rigl.GradualPruning(structure=NM(1, 4), schedule=schedule), layers)
    assert (plan.initial_active, plan.active) == ((32, 16), (8, 4))
    assert [row.tolist() for row in plan.targets] == [[32, 16], [16, 8], [8, 8], [8, 4], [8, 4]]


@checks("M1", "T2", "N2")
@pytest.mark.parametrize("density", [0.25, 0.5, 0.875])
def test_blocks_chosen_at_random(density: float) -> None:
    """Sums of random integers must not wrap around: with a negative sum, a kept block could be chosen again."""
    layer = Layer("a", (16, 16), (1,), (0,))
    schedule = UpdateSchedule(end=6, every=1)
    for seed in range(20):
        recipe = rigl.SET(
            1 - density, schedule=schedule, structure=Blocks(4), seed=seed, drop_fraction=rigl.Constant(0.5)
        )
        params = {"a": np.ones(layer.shape, np.float32)}
        optimizer = SGD(params)
        sparse = sparsify(params, optimizer, recipe, layers=[layer])
        for _ in range(6):
            optimizer.step({"a": np.ones(layer.shape, np.float32)})
            blocks = sparse.masks["a"].reshape(4, 4, 4, 4)
            assert blocks.sum() == density * layer.size
            assert set(blocks.sum((1, 3)).reshape(-1).tolist()) <= {0, 16}


@pytest.mark.parametrize("size", [2, 3, 7])
def test_sums_of_random_integers_rank_as_their_means(size: int) -> None:
    arrangement = arranged(Blocks(size), Layer("a", (size, 5 * size), (1,), (0,)))
    scores = np.random.default_rng(0).integers(2**30, 2**31, 5 * size**2).astype(np.int32)
    sums = arrangement.scores_by_unit(scores, xp=xp)
    exact = scores.reshape(size, 5, size).astype(np.int64).sum((0, 2))
    assert (sums >= 0).all()
    assert np.argsort(sums[0]).tolist() == np.argsort(exact).tolist()


@checks("M7", "T4")
def test_opposite_infinite_scores_count_as_zero() -> None:
    """Their sum in a block is NaN, which a choice cannot rank."""
    layer = Layer("a", (2, 8), (1,), (0,))
    scores = np.ones(layer.shape, np.float32)
    scores[0, 0], scores[1, 1], scores[0, 4:6] = np.inf, -np.inf, -1
    recipe = Recipe(0.25, initial=rigl.SCORES, structure=Blocks(2))
    params = {"a": np.ones(layer.shape, np.float32)}
    with np.errstate(invalid="ignore"):
        sparse = sparsify(params, SGD(params), recipe, layers=[layer], scores={"a": scores})
    assert sparse.masks["a"][0].tolist() == [True] * 4 + [False] * 2 + [True] * 2


def test_without_a_structure_there_is_no_arrangement() -> None:
    assert all(Unstructured().arrangement(layer) is None for layer in LAYERS)
