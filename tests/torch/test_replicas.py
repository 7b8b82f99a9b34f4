"""Replicas under DistributedDataParallel have one topology, which moves by the gradient reduced over all replicas."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from rigl_core import Layer, make_plan
from rigl_core.testing.checks import checks
from tests.torch.helpers import SCHEDULE, expected_mask, rigl, same_bits
from tests.torch.replicas import ALL_SCENARIOS, METHOD_SCENARIOS, SCENARIOS, STEPS, WORLD, work

REDUCED_PLAINLY = [name for name, scenario in SCENARIOS.items() if not scenario.power_sgd]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records of both replicas, for every scenario."""
    folder = tmp_path_factory.mktemp("replicas")
    mp.spawn(work, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def steps(records: list[dict[str, Any]], scenario: str) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """The step's number and the two replicas' records of it."""
    first, second = records[0][scenario], records[1][scenario]
    assert len(first) == len(second) == STEPS
    return zip(range(STEPS), first, second, strict=True)


@checks("G2", "N1")
@pytest.mark.parametrize("scenario", ALL_SCENARIOS)
def test_replicas_stay_alike(records: list[dict[str, Any]], scenario: str) -> None:
    for step, first, second in steps(records, scenario):
        for key in ("masks", "weights", "gradient", "norm", "new masks", "new weights", "deferred", "memory"):
            assert same_bits(first[key], second[key]), (step, key)
        for name, mask in first["new masks"].items():
            assert not first["new weights"][name][~mask].any()
    for earlier, later in pairwise(records[0][scenario]):
        assert same_bits(earlier["new masks"], later["masks"])


@checks("G1", "G2")
@pytest.mark.parametrize("scenario", REDUCED_PLAINLY)
def test_the_gradient_seen_is_the_mean_and_sparse_but_at_updates(records: list[dict[str, Any]], scenario: str) -> None:
    waiting = False
    for step, first, second in steps(records, scenario):
        updating = SCHEDULE.fires(step) or waiting
        waiting = first["deferred"]
        squares = 0.0
        for name, grad in first["gradient"].items():
            own = [gradient for record in (first, second) if (gradient := record["own gradient"][name]) is not None]
            if not own:
                assert grad is None
                continue
            mean = sum(own) / WORLD
            if name in first["masks"] and not updating:
                mean = torch.where(first["masks"][name], mean, 0)
                assert not grad[~first["masks"][name]].any()
            torch.testing.assert_close(grad, mean, equal_nan=True)
            squares += float(mean.double().pow(2).sum())
        torch.testing.assert_close(float(first["norm"]), math.sqrt(squares), rtol=1e-5, atol=0, equal_nan=True)


@checks("T2", "T5", "T6", "G2")
@pytest.mark.parametrize("scenario", REDUCED_PLAINLY)
def test_updates_follow_the_reduced_gradient(records: list[dict[str, Any]], scenario: str) -> None:
    first_step = records[0][scenario][0]
    layers = [Layer(name, tuple(mask.shape)) for name, mask in first_step["masks"].items()]
    plan = make_plan(rigl(0.8), layers)
    update, moved, own_way, waiting = 0, 0, 0, False
    for step, record, _ in steps(records, scenario):
        updating, waiting = SCHEDULE.fires(step) or waiting, record["deferred"]
        if not updating or waiting:
            assert same_bits(record["masks"], record["new masks"])
            continue
        for position, (name, old) in enumerate(record["masks"].items()):
            gradient, own, new = record["gradient"][name], record["own gradient"][name], record["new masks"][name]
            if gradient is None:
                assert torch.equal(old, new)
                continue
            drop_count = int(plan.drop_counts[update, position])
            assert torch.equal(new, expected_mask(record["weights"][name], gradient, old, drop_count))
            moved += int((new & ~old).sum())
            own_way += own is None or not torch.equal(new, expected_mask(record["weights"][name], own, old, drop_count))
        update += 1
    assert update == 3
    assert moved > 10
    assert own_way > 0  # this replica's own gradient would have moved it elsewhere


@checks("G1", "G2", "M9")
@pytest.mark.parametrize("method", METHOD_SCENARIOS)
def test_methods_read_the_reduced_gradient(records: list[dict[str, Any]], method: str) -> None:
    recipe, moved = METHOD_SCENARIOS[method].recipe, 0
    momentum = {name: torch.zeros(mask.numel()) for name, mask in records[0][method][0]["masks"].items()}
    for step, first, second in steps(records, method):
        for name, mask in first["masks"].items():
            mean = (first["own gradient"][name] + second["own gradient"][name]) / WORLD
            seen = mean if recipe.rule.reads_every_gradient else torch.where(mask, mean, 0)
            torch.testing.assert_close(first["gradient"][name], seen)
            momentum[name] = momentum[name] * 0.9 + mean.reshape(-1) * (1 - 0.9)
            if "momentum" in recipe.rule.memories:
                torch.testing.assert_close(first["memory"]["momentum"][name], momentum[name])
            moved += int((mask != first["new masks"][name]).sum())
            assert SCHEDULE.fires(step) or torch.equal(mask, first["new masks"][name])
    assert moved > 0


def test_a_nan_on_one_replica_defers_the_update_on_both(records: list[dict[str, Any]]) -> None:
    for rank in range(WORLD):
        record = records[rank]["a NaN on one replica"]
        assert [step for step, made in enumerate(record) if made["deferred"]] == [7]
        assert same_bits(record[7]["weights"], record[7]["new weights"])
        assert not same_bits(record[8]["masks"], record[8]["new masks"])


def test_compression_that_mixes_weights_still_trains_sparsely(records: list[dict[str, Any]]) -> None:
    """PowerSGD rebuilds gradients after the hooks: clipping sees dense gradients, the optimizer sparse ones."""
    seen_whole = 0
    for step, record, _ in steps(records, "compressed"):
        for name, mask in record["masks"].items():
            seen_whole += not SCHEDULE.fires(step) and bool(record["gradient"][name][~mask].any())
            assert not record["new weights"][name][~record["new masks"][name]].any()
    assert seen_whole > 0
