"""The quickstart's trainings: every backend gets the same runs, and RigL learns more than SET and Static."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch.nn.functional import cross_entropy

import mlp_jax
import mlp_numpy
import mlp_tf
import mlp_torch
from data import Dataset, load
from history import History
from picture import agreement, spread
from runs import make_runs
from table import accuracy_text, costs

METHODS = ["dense", "Static", "SET", "RigL"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def histories(digits: Dataset) -> dict[str, History]:
    runs = make_runs(digits, [0.99], seeds=1, steps=1000)
    return {run.method: mlp_numpy.train(run, run.batches()) for run in runs}


def test_runs_differ_in_their_recipe_alone(digits: Dataset) -> None:
    runs = make_runs(digits, [0.98, 0.99], seeds=2, steps=30)
    assert [(run.method, run.sparsity, run.seed) for run in runs] == [
        (method, sparsity, seed)
        for seed in (0, 1)
        for method, sparsity in [("dense", 0.0), *((m, s) for s in (0.98, 0.99) for m in METHODS[1:])]
    ]
    for run in runs:
        first = runs[7 * run.seed]
        assert run.weights is first.weights
        assert run.batch_rows is first.batch_rows
    assert not np.array_equal(runs[0].weights["fc1.weight"], runs[7].weights["fc1.weight"])


def test_batches_take_every_image_at_most_once_an_epoch(digits: Dataset) -> None:
    rows = make_runs(digits, [], seeds=1, steps=45)[0].batch_rows
    assert rows.shape == (45, 64)
    for epoch in (rows[:21], rows[21:42]):
        assert len(np.unique(epoch)) == 21 * 64


def test_the_gradients_by_hand_are_autograds(digits: Dataset) -> None:
    run = make_runs(digits, [], seeds=1, steps=1)[0]
    images, labels = next(run.batches())
    model = mlp_torch.MLP(run)
    cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
    by_hand = mlp_numpy.gradients(dict(run.weights), images, labels)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(by_hand[name], parameter.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", [mlp_torch, mlp_jax, mlp_tf], ids=lambda module: module.__name__)
def test_backends_agree(digits: Dataset, backend: ModuleType, method: str) -> None:
    """Keras stores kernels as (in, out), so its random topologies differ from the others. All else is the same."""
    run = next(run for run in make_runs(digits, [0.9], seeds=1, steps=250) if run.method == method)
    by_numpy, by_other = (module.train(run, run.batches()) for module in (mlp_numpy, backend))
    assert by_numpy.active == by_other.active
    assert by_numpy.update_steps == by_other.update_steps
    same_topology = backend is not mlp_tf or method == "dense"
    if same_topology:
        assert np.array_equal(by_numpy.pixels_at_start, by_other.pixels_at_start)
        assert by_numpy.accuracies[0] == by_other.accuracies[0]
    assert by_numpy.accuracies[-1] == pytest.approx(by_other.accuracies[-1], abs=0.02 if same_topology else 0.05)
    assert by_numpy.accuracies[-1] > 0.85


def test_rigl_learns_more_than_set_and_static(histories: dict[str, History]) -> None:
    last = {method: history.accuracies[-1] for method, history in histories.items()}
    assert last["dense"] > 0.95
    assert last["RigL"] > 0.8
    assert last["RigL"] > last["SET"] + 0.3
    assert last["RigL"] > last["Static"] + 0.3


def test_the_parameter_count_stays(histories: dict[str, History]) -> None:
    assert {method: history.active for method, history in histories.items()} == {
        "dense": 50_200,
        "Static": 502,
        "SET": 502,
        "RigL": 502,
    }


def test_rigl_finds_the_pixels_that_vary(histories: dict[str, History], digits: Dataset) -> None:
    variation = digits.train_images.std(axis=0)
    rigl, static = histories["RigL"], histories["Static"]
    assert np.array_equal(rigl.pixels_at_start, static.pixels_at_end)
    assert abs(np.corrcoef(rigl.pixels_at_start, variation)[0, 1]) < 0.3
    assert np.corrcoef(rigl.pixels_at_end, variation)[0, 1] > 0.5


def test_updates_exchange_at_most_what_they_drop(histories: dict[str, History]) -> None:
    assert histories["Static"].update_steps == []
    for method in ("SET", "RigL"):
        history = histories[method]
        plan = history.run.plan
        assert plan is not None
        assert history.update_steps == list(range(0, 750, 50))
        dropped = plan.drop_counts.sum(axis=1) / history.active
        assert np.all(np.array(history.changed) <= dropped + 1e-12)
        assert history.changed[0] > 0.2


def test_costs_are_of_the_plan(histories: dict[str, History]) -> None:
    assert costs(histories["dense"].run) == (1, 1)
    assert costs(histories["SET"].run) == pytest.approx((0.01, 0.01))
    assert costs(histories["RigL"].run) == pytest.approx((0.01 + 15 * 0.99 / (3 * 1000), 0.01))


def test_accuracies_are_told_with_their_spread(histories: dict[str, History]) -> None:
    def ending(accuracy: float) -> History:
        return dataclasses.replace(histories["RigL"], accuracies=[0.1, accuracy])

    assert accuracy_text([ending(0.9)]) == "90.0 %"
    assert accuracy_text([ending(0.9), ending(0.92), ending(0.94)]) == "92.0 ± 2.0 %"


def test_labels_in_the_picture_do_not_overlap() -> None:
    assert spread([97.0, 20.0, 96.0, 94.0], gap=5) == [97.0, 20.0, 92.0, 87.0]


def test_agreement_is_left_out_where_it_means_nothing() -> None:
    pixels = np.arange(4.0)
    assert agreement(pixels, pixels.astype(np.float32)) == ", r = 1.00"
    assert agreement(-pixels, pixels.astype(np.float32)) == ", r = \N{MINUS SIGN}1.00"
    assert agreement(np.ones(4), pixels.astype(np.float32)) == ""
