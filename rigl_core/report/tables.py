"""Tables for a terminal: ``rich.print(tables.sparsity(plan))``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from rigl_core.costs.flops import CostTable
from rigl_core.inspect.history import History, Snapshot
from rigl_core.inspect.neurons import EffectiveArchitecture
from rigl_core.model.table import SparsityTable
from rigl_core.plan import Plan
from rigl_core.storage.changes import Change, rows


def sparsity(table: SparsityTable | Plan) -> Table:
    """Shape, density, active and zero weights: a row for each layer and the total.

    Args:
        table: a plan, or the ``table`` of a training.
    """
    table = table.table if isinstance(table, Plan) else table
    return _table(table.title, table.rows)


def costs(costs: CostTable, *, total_steps: int | None = None) -> Table:
    """Operations of one forward pass for one example, and bytes of the weights: a row for each layer and the total.

    Args:
        costs: the result of `rigl_core.cost_table`.
        total_steps: optimizer steps of a training; if given, the title also has its cost relative to dense training.
    """
    title = costs.title
    if total_steps is not None:
        title += f", training at {costs.training(total_steps):.4f}"
    return _table(title, costs.rows)


def neurons(architecture: EffectiveArchitecture) -> Table:
    """Living and dead neurons, and connections between living ones: rows for the inputs, each layer and the total."""
    rows: list[tuple[str, ...]] = [("neurons of", "all", "alive", "dead", "dead %", "active connections")]
    names = ["inputs", *(layer.name for layer in architecture.layers)]
    connections = ["", *(f"{active:,}" for active in architecture.active)]
    for name, *counts, active in zip(names, architecture.widths, architecture.dead, connections, strict=True):
        rows.append((name, *_neuron_counts(*counts), active))
    total = _neuron_counts(sum(architecture.widths), sum(architecture.dead))
    rows.append(("total", *total, f"{sum(architecture.active):,}"))
    return _table(str(architecture), rows, texts=1)


def history(history: History) -> Table:
    """Density, moved share, R_s and the layer that moved most: a row for each snapshot.

    Of a history that knows the layers it also shows the share of outputs without an active connection (``empty``), and
    of one with a chain the share of active connections on no path.
    """
    first = history.snapshots[0] if history.snapshots else None
    empty, path = first is not None and first.empty is not None, first is not None and first.on_no_path is not None
    wasted = ["empty %"] * empty + ["no path %"] * path
    rows: list[tuple[str, ...]] = [("step", "density", "moved %", "R_s", *wasted, "moved most")]
    for i, snapshot in enumerate(history.snapshots):
        moved = f"{100 * snapshot.moved:.2f}" if i else ""
        numbers = (f"{snapshot.density:.4f}", moved, f"{snapshot.r_s:.4f}")
        wasted = [f"{100 * share:.1f}" for share in (snapshot.empty, snapshot.on_no_path) if share is not None]
        rows.append((f"{snapshot.step:,}", *numbers, *wasted, _moved_most(snapshot)))
    table = _table("", rows, texts=0, total=False)
    table.columns[-1].justify = "left"
    return table


def changes(found: Sequence[Change]) -> Table:
    """Equal, added and removed connections of two topologies: a row for each layer and the total.

    Args:
        found: the result of `rigl_core.storage.changes.changes`.
    """
    return _table("", rows(found))


def recipe(recipe: Mapping[str, Any]) -> Table:
    """The fields of a recipe.

    Args:
        recipe: as `rigl_core.Recipe.to_dict` gives it.
    """
    # As JSON, since what a file says may hold a terminal's control characters.
    fields = [(json.dumps(name)[1:-1], json.dumps(value)) for name, value in recipe.items()]
    return _table("recipe", [("field", "value"), *fields], total=False)


def _neuron_counts(alive: int, dead: int) -> tuple[str, ...]:
    size = alive + dead
    return f"{size:,}", f"{alive:,}", f"{dead:,}", f"{100 * dead / size if size else 0:.1f}"


def _moved_most(snapshot: Snapshot) -> str:
    name = max(snapshot.layers_moved, key=snapshot.layers_moved.__getitem__, default="")
    share = snapshot.layers_moved.get(name, 0)
    return f"{name} ({100 * share:.2f} %)" if share else ""


def _table(title: str, rows: Sequence[tuple[str, ...]], *, texts: int = 2, total: bool = True) -> Table:
    """A table from cells of text. Cells become `Text`, since rich could take parts of a layer's name for markup.

    Args:
        title: the title above the table, or an empty string.
        rows: the headings, then the other rows.
        texts: the number of columns that hold texts, from the left; the others hold numbers.
        total: whether the last row is a total.
    """
    table = Table(title=Text(title, "bold") if title else None, title_justify="left")
    for i, heading in enumerate(rows[0]):
        table.add_column(Text(heading), justify="left" if i < texts else "right", overflow="fold")
    for i, row in enumerate(rows[1:], start=2):
        if total and i == len(rows):
            table.add_section()
        table.add_row(*map(Text, row), style="bold" if total and i == len(rows) else None)
    return table
