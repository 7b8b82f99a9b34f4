"""The comparison of all methods: each method trains in each framework, and the table has its costs."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console
from threadpoolctl import threadpool_limits

import rigl_core
from comparison import to_table
from data import Dataset, load
from entries import ENTRIES, Entry, Setting
from trainings import Result, train

SETTING = Setting(sparsity=0.9, steps=200, every=20)
SHORT = Setting(sparsity=0.9, steps=40, every=10)
BY_NAME = {entry.name: entry for entry in ENTRIES}
OWN_SPARSITY = {"dense": 50_200, "RigL 2:4": 25_100}
NEARLY = {"small dense": 0.1, "SRigL": 0.1, "SRigL as published": 0.1, "RigL, 4x4 blocks": 0.3}
"""Relative tolerances of entries whose count cannot be exact: whole widths, fan-ins or blocks, a dense output."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_method_ends_with_its_number_of_weights(digits: Dataset, entry: Entry) -> None:
    result = train(entry, "numpy", digits, SETTING)
    expected = OWN_SPARSITY.get(entry.name, 5_020)
    assert result.active == pytest.approx(expected, rel=NEARLY.get(entry.name, 0))
    assert result.accuracy > 0.5
    assert result.active / 50_200 <= result.ever_active <= 1
    assert 0 < result.inference <= 1
    assert result.training >= result.inference * 0.99


@pytest.fixture(scope="module")
def train_numpy(digits: Dataset) -> Callable[[str], Result]:
    """A short training in NumPy, which all frameworks are compared with; made once."""
    return functools.cache(lambda name: train(BY_NAME[name], "numpy", digits, SHORT))


@pytest.mark.parametrize("backend", ["torch", "jax", "tf"])
@pytest.mark.parametrize(
    "name", ["SNIP", "GraSP", "SynFlow", "SNFS", "Deep R", "lottery ticket", "DNW", "RigL, 4x4 blocks"]
)
def test_frameworks_agree_on_the_costs(
    digits: Dataset, train_numpy: Callable[[str], Result], backend: str, name: str
) -> None:
    by_numpy, by_other = train_numpy(name), train(BY_NAME[name], backend, digits, SHORT)
    assert (by_other.active, by_other.size) == (by_numpy.active, by_numpy.size)
    if name not in ("SNIP", "SNFS", "GraSP", "SynFlow"):  # rounding may decide how many weights their layers get
        assert by_other.training == pytest.approx(by_numpy.training)


def test_the_table_has_a_row_for_each_method() -> None:
    result = Result(BY_NAME["RigL"], 0.9, 5_020, 50_200, 0.25, 0.11, 0.1)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(to_table({("RigL", "numpy"): result, ("RigL", "torch"): result}, SETTING, ["numpy", "torch"]))
    (row,) = [line for line in console.export_text().splitlines() if "RigL" in line]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "RigL", "90.0", "90.0", "5,020", "0.250", "0.110", "0.100",
    ]  # fmt: skip


def test_every_published_method_is_compared() -> None:
    recipes = {entry.make(SETTING).method for entry in ENTRIES if entry.make is not None}
    schedule = rigl_core.UpdateSchedule(end=1)
    everything = {
        method(0.5, **({"at": 1} if name == "OneShotPruning" else {} if name in _AT_START else {"schedule": schedule}))
        for name, method in vars(rigl_core.methods).items()
        if name in rigl_core.methods.__all__ and name != "Options"
    }
    assert recipes == {recipe.method for recipe in everything}


_AT_START = ("Static", "SNIP", "GraSP", "SynFlow", "LotteryTicket")
