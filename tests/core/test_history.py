"""The history of a topology, compared with a count of each connection."""

from __future__ import annotations

import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_backends.numpy import SGD, sparsify
from rigl_core import History, RigL, UpdateSchedule
from rigl_core.testing.checks import checks

topologies = st.lists(st.integers(0, 2**17 - 1), min_size=1, max_size=6).map(
    lambda numbers: [masks_from_bits(number) for number in numbers]
)


def masks_from_bits(number: int) -> dict[str, np.ndarray[Any, Any]]:
    bits = np.array([number >> i & 1 for i in range(17)], bool)
    return {"a": bits[:12].reshape(3, 4), "b": bits[12:]}


def connections(masks: dict[str, np.ndarray[Any, Any]], *names: str) -> set[tuple[str, int]]:
    return {(name, i) for name in names for i in range(masks[name].size) if masks[name].flat[i]}


def share(part: int, whole: int) -> float:
    return float(Fraction(part, whole)) if whole else 0.0


@given(topologies)
def test_every_number_by_sets_of_connections(topologies: list[dict[str, np.ndarray[Any, Any]]]) -> None:
    history = History()
    ever: set[tuple[str, int]] = set()
    for i, masks in enumerate(topologies):
        snapshot = history.add(10 * i, masks)
        before = topologies[max(i - 1, 0)]
        now = connections(masks, "a", "b")
        ever |= now
        assert snapshot.step == 10 * i
        assert snapshot.density == share(len(now), 17)
        assert snapshot.moved == share(len(now - connections(before, "a", "b")), len(now))
        assert snapshot.r_s == share(len(ever), 17)
        for name, size in (("a", 12), ("b", 5)):
            own = connections(masks, name)
            assert snapshot.densities[name] == share(len(own), size)
            assert snapshot.layers_moved[name] == share(len(own - connections(before, name)), len(own))
    assert len(history.snapshots) == len(topologies)
    assert connections(history.ever_active, "a", "b") == ever
    assert connections(history.masks, "a", "b") == connections(topologies[-1], "a", "b")


@given(topologies)
def test_r_s_never_falls_and_is_at_least_the_density(topologies: list[dict[str, np.ndarray[Any, Any]]]) -> None:
    history = History()
    for step, masks in enumerate(topologies):
        history.add(step, masks)
    rates = [snapshot.r_s for snapshot in history.snapshots]
    assert rates == sorted(rates)
    assert all(snapshot.density <= snapshot.r_s <= 1 for snapshot in history.snapshots)
    assert history.snapshots[0].r_s == history.snapshots[0].density


def test_of_a_training() -> None:
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(20, 10)), "b": rng.normal(size=(10, 10))}
    optimizer = SGD(params, 0.1)
    schedule = UpdateSchedule(end=9, every=3)
    sparse = sparsify(params, optimizer, RigL(0.8, schedule=schedule))
    history = History()
    history.add(sparse.step, sparse.masks)
    for step in range(12):
        optimizer.step({name: rng.normal(size=param.shape) for name, param in params.items()})
        if schedule.fires(step):
            history.add(sparse.step, sparse.masks)
    assert [snapshot.step for snapshot in history.snapshots] == [0, 1, 4, 7]
    assert all(snapshot.density == 0.2 for snapshot in history.snapshots)
    assert history.snapshots[0].moved == 0
    for update, snapshot in enumerate(history.snapshots[1:]):
        assert 0 < snapshot.moved <= sparse.plan.drop_counts[update].sum() / 60


def test_masks_are_copied_in_and_out() -> None:
    mask = np.array([True, False])
    history = History()
    history.add(0, {"a": mask})
    mask[:] = [False, True]
    history.masks["a"][:] = history.ever_active["a"][:] = False
    assert history.masks["a"].tolist() == history.ever_active["a"].tolist() == [True, False]
    snapshot = pickle.loads(pickle.dumps(history)).add(1, {"a": mask})
    assert (snapshot.moved, snapshot.r_s) == (1, 1)


@checks("P3")
def test_what_does_not_follow_is_refused_and_leaves_the_history_as_it_was() -> None:
    history = History()
    history.add(3, {"a": np.ones(2, bool)})
    with pytest.raises(ValueError, match="step is 3, and the last snapshot is of step 3"):
        history.add(3, {"a": np.ones(2, bool)})
    with pytest.raises(ValueError, match=r"they differ in \['b'\]"):
        history.add(4, {"a": np.ones(2, bool), "b": np.ones(2, bool)})
    with pytest.raises(TypeError, match=r"step is 1\.5: it must be a whole number"):
        history.add(1.5, {"a": np.ones(2, bool)})  # type: ignore[arg-type]
    assert len(history.snapshots) == 1
