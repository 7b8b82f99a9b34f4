"""The tables for a terminal: all cells, and names that look like rich's markup."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rigl_core import (
    History,
    Layer,
    RigL,
    SparsityTable,
    Uniform,
    UpdateSchedule,
    cost_table,
    effective_architecture,
    make_plan,
    specs,
)
from rigl_core.report import tables
from rigl_core.storage import Topology
from rigl_core.storage.changes import changes

PLAN = make_plan(RigL(0.9, schedule=UpdateSchedule(end=100, every=10)), specs.mlp(784, 300, 100, 10))


def printed(table: Table, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def cells(table: Table) -> list[list[str]]:
    """The printed cells, row by row, without the lines between rows."""
    assert all(isinstance(cell, Text) for column in table.columns for cell in column.cells)
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return [[str(column.header) for column in table.columns], *([str(cell) for cell in row] for row in rows)]


def test_a_plan() -> None:
    table = tables.sparsity(PLAN)
    assert str(table.title) == "RigL, sparsity 0.9, erk, epsilon = 17.2642, 3 layers, 1 of them dense"
    assert cells(table) == [
        ["layer", "shape", "density", "active", "zeros"],
        ["fc1.weight", "300x784", "0.0796", "18,714", "216,486"],
        ["fc2.weight", "100x300", "0.2302", "6,906", "23,094"],
        ["fc3.weight", "10x100", "1.0000", "1,000", "0"],
        ["total", "", "0.1000", "26,620", "239,580"],
    ]
    assert [column.justify for column in table.columns] == ["left", "left", "right", "right", "right"]
    assert cells(tables.sparsity(PLAN.table)) == cells(table)


def test_costs() -> None:
    costs = cost_table(PLAN)
    table = tables.costs(costs, total_steps=200)
    assert (
        str(table.title) == f"RigL, inference at {costs.inference:.4f} of dense, training at {costs.training(200):.4f}"
    )
    assert str(tables.costs(costs).title) == f"RigL, inference at {costs.inference:.4f} of dense"
    assert cells(table)[0] == ["layer", "shape", "positions", "density", "dense FLOPs", "FLOPs", "bytes"]
    assert cells(table)[2] == ["fc2.weight", "100x300", "1", "0.2302", "60,000", "13,812", "31,374"]
    assert cells(table)[-1] == ["total", "", "", "0.1000", "532,400", "53,240", f"{sum(costs.weight_bytes()):,.0f}"]


def test_neurons() -> None:
    masks = {
        "fc1.weight": np.array([[1, 1], [0, 0]], bool),
        "fc2.weight": np.array([[1, 0], [0, 1]], bool),
        "fc3.weight": np.array([[1, 1]], bool),
    }
    table = tables.neurons(effective_architecture(specs.mlp(2, 2, 2, 1), masks))
    assert str(table.title) == "2-1-1-1 (of 2-2-2-1), 4 active connections"
    assert cells(table) == [
        ["neurons of", "all", "alive", "dead", "dead %", "active connections"],
        ["inputs", "2", "2", "0", "0.0", ""],
        ["fc1.weight", "2", "1", "1", "50.0", "2"],
        ["fc2.weight", "2", "1", "1", "50.0", "1"],
        ["fc3.weight", "1", "1", "0", "0.0", "1"],
        ["total", "7", "5", "2", "28.6", "4"],
    ]


def test_changes_of_a_topology() -> None:
    layer = Layer("a", (2, 2), (1,), (0,))
    before, after = (
        Topology((layer,), {"a": np.array(mask, bool).reshape(2, 2)}) for mask in ([1, 1, 0, 1], [1, 0, 1, 1])
    )
    assert cells(tables.changes(changes(before, after))) == [
        ["layer", "shape", "equal %", "added", "removed"],
        ["a", "2x2", "50.00", "1", "1"],
        ["total", "", "50.00", "1", "1"],
    ]


def test_a_recipe_that_a_file_names() -> None:
    table = tables.recipe({"seed": 3, "\x1b[31m": "\x1b[0m", "dense": ["a*"]})
    assert cells(table) == [
        ["field", "value"],
        ["seed", "3"],
        ["\\u001b[31m", '"\\u001b[0m"'],
        ["dense", '["a*"]'],
    ]


def test_a_history() -> None:
    history = History()
    history.add(0, {"a": np.array([1, 1, 0, 0], bool), "b": np.array([1, 0], bool)})
    history.add(1, {"a": np.array([1, 0, 1, 0], bool), "b": np.array([0, 1], bool)})
    history.add(1101, {"a": np.array([1, 0, 1, 0], bool), "b": np.array([0, 1], bool)})
    assert cells(tables.history(history)) == [
        ["step", "density", "moved %", "R_s", "moved most"],
        ["0", "0.5000", "", "0.5000", ""],
        ["1", "0.5000", "66.67", "0.8333", "b (100.00 %)"],
        ["1,101", "0.5000", "0.00", "0.8333", ""],
    ]
    assert cells(tables.history(History())) == [["step", "density", "moved %", "R_s", "moved most"]]


@pytest.mark.parametrize("name", ["params['fc1']['kernel']", "blocks[0].weight", "[bold]x[/bold]", "[/]", "🐍 :snake:"])
def test_names_are_printed_as_they_are(name: str) -> None:
    layer = Layer(name, (2, 3), (1,), (0,))
    history = History()
    history.add(0, {name: np.array([True, False])})
    history.add(1, {name: np.array([False, True])})
    plan = make_plan(RigL(0.5, schedule=UpdateSchedule(10), distribution=Uniform(first_dense=False)), [layer])
    for table in (
        tables.sparsity(SparsityTable((layer,), (3,), title=name)),
        tables.costs(cost_table(plan)),
        tables.neurons(effective_architecture([layer], {})),
        tables.history(history),
    ):
        assert name in printed(table)


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=6), st.integers(30, 200))
def test_every_number_reaches_the_terminal(rows: list[tuple[int, float]], width: int) -> None:
    """In a narrow terminal long names are wrapped, not cut."""
    layers = tuple(Layer(f"layer{i}", (size,)) for i, (size, _) in enumerate(rows))
    table = SparsityTable(layers, tuple(int(size * share) for size, share in rows))
    text = printed(tables.sparsity(table), width)
    assert "…" not in text
    if width >= 60:
        for row in table.rows:
            assert any(all(cell in line for cell in row) for line in text.splitlines())
