"""The table: the accuracy of each method in each framework, and its costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from entries import Setting
from trainings import Result


def to_table(results: Mapping[tuple[str, str], Result], setting: Setting, backends: Sequence[str]) -> Table:
    """One row for each method; weights and costs are those of the first framework.

    Args:
        results: by method and framework.
        setting: the options that all trainings shared.
        backends: the frameworks, in the columns' order.
    """
    table = Table(
        title=f"digits, MLP 64-300-100-10, sparsity {setting.sparsity:g}, {setting.steps:,} steps, seed {setting.seed}",
        caption="Test accuracy in %. R_s: share of connections ever active. Costs: operations, dense = 1.",
    )
    table.add_column("Method", overflow="fold")
    for heading in (*backends, "Active\nweights", "R_s", "Training\ncost", "Inference\ncost"):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(name for name, _ in results):
        first = results[name, backends[0]]
        table.add_row(
            name,
            *(f"{100 * results[name, backend].accuracy:.1f}" for backend in backends),
            f"{first.active:,}",
            f"{first.ever_active:.3f}",
            f"{first.training:.3f}",
            f"{first.inference:.3f}",
            style="bold" if name == "RigL" else None,
        )
    return table
