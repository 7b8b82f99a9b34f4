"""The fast selection finds exactly the mask of the definition."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigl_core import GRADIENT, RANDOM, Connections, Criterion, Recipe, UpdateSchedule
from rigl_core.adapter import move_pool, numpy_namespace
from rigl_core.arrays import topology
from rigl_core.arrays.random import random_scores
from rigl_core.plan import Counts
from rigl_core.step import scoring, selection, workers

Floats = npt.NDArray[np.floating[Any]]
DTYPES = ["float16", "float32", "float64"]
RIGL = Recipe(schedule=UpdateSchedule(end=1))
KINDS = ["normal", "tied", "zeros", "special", "nearly none", "one", "sorted"]
SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-310, 1.2e-38, 6e-8, 65504.0]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the code treat small layers as large ones: it reads them in many parts, and gets bounds from a sample."""
    monkeypatch.setattr(selection, "SMALL", 500)
    monkeypatch.setattr(workers, "PART", 64)
    monkeypatch.setattr(selection, "SAMPLE", 128)
    monkeypatch.setattr(workers, "LARGE", 64)


def values(kind: str, dtype: str, size: int, rng: np.random.Generator) -> Floats:
    x = rng.standard_normal(size)
    if kind == "tied":
        x = np.round(x)
    elif kind == "zeros":
        x = np.where(rng.random(size) < 0.01, x, -0.0)
    elif kind == "special":
        x = np.where(rng.random(size) < 0.3, rng.choice(SPECIAL, size), x)
    elif kind == "nearly none":
        x = np.where(rng.random(size) < 0.01, x, rng.choice([np.nan, -np.nan, 1e-45, -1e-45, 5e-324, -0.0], size))
    elif kind == "one":
        x = np.full(size, rng.choice(SPECIAL))
    elif kind == "sorted":
        x = np.sort(x)
    with np.errstate(over="ignore", under="ignore"):
        return x.astype(dtype)


def new_mask(recipe: Recipe, connections: Connections, mask: Any, keep: int, grow: int) -> Any:
    (updated,) = move_pool(recipe.rule, [connections], [mask], Counts(keep, grow), xp=numpy_namespace)
    return updated.mask


@settings(max_examples=300)
@given(data=st.data())
def test_the_updated_mask_is_the_definitions(data: st.DataObject) -> None:
    kinds = st.sampled_from(KINDS)
    size = data.draw(st.integers(0, 3000), "size")
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6), "seed"))
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    weight, gradient = (values(data.draw(kinds, name), dtype, size, rng) for name in ("weight", "gradient"))
    active = data.draw(st.integers(0, size), "active")
    mask = np.zeros(size, np.bool_)
    mask[rng.permutation(size)[:active]] = True
    grow = data.draw(st.integers(0, active), "grow")
    scores = [topology.magnitude(x, xp=numpy_namespace) for x in (weight, gradient)]
    simple, _ = topology.updated_mask(*scores, mask, active - grow, grow, xp=numpy_namespace)
    if not scores[1].any():  # no information (T6)
        simple = mask
    fast = new_mask(RIGL, Connections(weight, gradient), mask, active - grow, grow)
    np.testing.assert_array_equal(fast, simple)
    assert fast.dtype == np.bool_


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_count(dtype: str) -> None:
    rng = np.random.default_rng(1)
    size = 700
    for kind in ("normal", "tied", "zeros", "special", "nearly none"):
        scores = topology.magnitude(values(kind, dtype, size, rng), xp=numpy_namespace)
        eligible = rng.random(size) < 0.6
        for k in range(np.count_nonzero(eligible) + 1):
            read = scoring.Scores(lambda part, scores=scores: scores[part])
            simple = topology.top_k_mask(np.where(eligible, scores, -1), k, xp=numpy_namespace)
            for chosen in ({"among": eligible}, {"outside": ~eligible}):
                fast = selection.best_of(read, k, **chosen)
                np.testing.assert_array_equal(fast, simple, err_msg=f"{kind}, k={k}, {[*chosen]}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_a_look_shows_the_scores_that_are_not_zero(dtype: str, kind: str) -> None:
    x = values(kind, dtype, 500, np.random.default_rng(6))
    scores = scoring.scores_of(GRADIENT, Connections(x, x))
    assert isinstance(scores, scoring.Magnitudes)
    assert 0 < scores.floor < np.finfo(dtype).smallest_normal
    every, exact = slice(0, 500), topology.magnitude(x, xp=numpy_namespace)
    seen = scores.look(every)
    np.testing.assert_array_equal(seen > scores.floor, exact > 0)
    np.testing.assert_array_equal(seen[exact > 0], exact[exact > 0])
    some = np.flatnonzero(exact > 0)[::3]
    np.testing.assert_array_equal(scores.look(some), exact[some])


def test_halves_are_not_plain_magnitudes() -> None:
    x = np.ones(9, np.float16)
    assert not isinstance(scoring.scores_of(GRADIENT, Connections(x, x)), scoring.Magnitudes)


def test_a_sample_that_misleads(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(2).random(5000).astype(np.float32)
    eligible = np.ones(5000, np.bool_)
    simple = topology.top_k_mask(scores, 300, xp=numpy_namespace)
    for bounds in ((0.99, np.inf), (0.1, 0.2), (2.0, 3.0)):
        monkeypatch.setattr(selection, "_bounds", lambda *_, bounds=bounds: bounds)
        np.testing.assert_array_equal(
            selection.best_of(scoring.Scores(lambda part: scores[part]), 300, among=eligible), simple
        )


def test_random_scores_of_parts() -> None:
    size, key = 3000, (123, -456)
    mask = np.random.default_rng(3).random(size) < 0.3
    active = int(np.count_nonzero(mask))
    ones = np.ones(size, np.float32)
    connections = Connections(ones, ones, indices=np.arange(size, dtype=np.int32), random_key=key)
    fast = new_mask(Recipe(drop=RANDOM, grow=RANDOM), connections, mask, active - 200, 200)
    drop, grow = (random_scores(k, connections.indices, xp=numpy_namespace) for k in (key[::-1], key))
    simple, _ = topology.updated_mask(drop, grow, mask, active - 200, 200, xp=numpy_namespace)
    np.testing.assert_array_equal(fast, simple)


def test_a_criterion_of_ones_own() -> None:
    """A user's criterion may use all operations of a namespace, and its scores may be -0."""

    def saliency(connections: Connections, xp: Any) -> Any:
        product = connections.weight * connections.gradient
        clipped = xp.where(product > 0, product, xp.zeros_like(product))
        return xp.where(clipped > 1, xp.full_like(clipped, 1), -xp.zeros_like(clipped) + clipped)

    rng = np.random.default_rng(4)
    mask = rng.random(4000) < 0.2
    active = int(np.count_nonzero(mask))
    connections = Connections(*rng.standard_normal((2, 4000)).astype(np.float32))
    recipe = Recipe(drop=Criterion("saliency", saliency, reads_gradient=True), grow=GRADIENT)
    fast = new_mask(recipe, connections, mask, active - 99, 99)
    scores = (criterion.score(connections, numpy_namespace) for criterion in (recipe.drop, recipe.grow))
    np.testing.assert_array_equal(fast, topology.updated_mask(*scores, mask, active - 99, 99, xp=numpy_namespace)[0])


def test_an_update_needs_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the original sizes of parts and sample
    size = 1 << 20
    rng = np.random.default_rng(5)
    weight, gradient = rng.standard_normal((2, size), dtype=np.float32)
    mask = rng.random(size) < 0.5
    active = int(np.count_nonzero(mask))
    tracemalloc.start()
    new_mask(Recipe(), Connections(weight, gradient), mask, active - 9999, 9999)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * weight.nbytes


@given(st.integers(0, 2**32), st.sampled_from(DTYPES), st.sampled_from(["random", "zeros", "special"]))
def test_numbers_outside_masks_and_numbers_that_are_not_finite(seed: int, dtype: str, kind: str) -> None:
    rng = np.random.default_rng(seed)
    arrays = [values(kind, dtype, size, rng).reshape(-1, 1) for size in (0, 1, 300)]
    masks = [rng.random(array.shape) < rng.choice([0.5, 1.0]) for array in arrays]
    arrays = [np.where(mask | (rng.random() < 0.5), array, -0.0) for array, mask in zip(arrays, masks, strict=True)]
    outside = [np.count_nonzero(array[~mask]) for array, mask in zip(arrays, masks, strict=True)]
    assert workers.any_outside(arrays, masks) == any(outside)
    pairs = zip(arrays, masks, strict=True)
    assert [workers.count_outside(array.reshape(-1), mask.reshape(-1)) for array, mask in pairs] == outside
    assert workers.all_finite(arrays) == all(np.isfinite(array).all() for array in arrays)


@pytest.mark.parametrize("large", [0, 3, 5])
def test_every_layer_is_moved_once(monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(workers, "LARGE", large)
    moved: list[int] = []
    workers.two_at_a_time(moved.append, range(5), lambda layer: layer)
    assert sorted(moved) == list(range(5))


@pytest.mark.parametrize("large", [0, 3, 5])
def test_two_layers_at_a_time_raise_what_one_raises(monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(workers, "LARGE", large)

    def move(layer: int) -> None:
        if layer == 2:
            raise ValueError("layer 2")

    with pytest.raises(ValueError, match="layer 2"):
        workers.two_at_a_time(move, range(4), lambda layer: layer)
