"""The table: the accuracy of each method, and its costs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.table import Table

from history import History, by_method
from rigl_core import cost_table
from rigl_core.inspect import empty_share, units
from runs import TRULY_SPARSE, Run


def title_of(runs: Sequence[Run], backend: str) -> str:
    """The title of table and picture: data set, network, training and framework in one line."""
    run = runs[0]
    widths = [run.layers[0].n_in, *(layer.n_out for layer in run.layers)]
    seeds = len({run.seed for run in runs})
    return (
        f"{run.dataset.name}: MLP {'-'.join(map(str, widths))}, {run.steps:,} steps, "
        f"{seeds} seed{'s' if seeds > 1 else ''}, {backend}"
    )


def to_table(histories: Sequence[History], title: str) -> Table:
    """One row for each method and sparsity."""
    caption = "Test accuracy: mean ± standard deviation. Empty: without an input. Costs: operations, dense = 1."
    table = Table(title=title, caption=caption)
    table.add_column("Method")
    headings = ["Sparsity", "Accuracy", "Active weights", "Empty\nunits", "Training\ncost", "Inference\ncost"]
    truly_sparse = any(history.run.method == TRULY_SPARSE for history in histories)
    for heading in headings + ["ms a\nstep", "MB\nheld"] * truly_sparse:
        table.add_column(heading, justify="right")
    last_sparsity = 0.0
    for (method, sparsity), group in by_method(histories).items():
        if sparsity != last_sparsity:
            table.add_section()
        last_sparsity = sparsity
        training, inference = costs(group[0].run)
        table.add_row(
            method,
            f"{100 * sparsity:g} %",
            accuracy_text(group),
            f"{group[0].active:,}",
            empty_text(group),
            f"{training:.3f}",
            f"{inference:.3f}",
            *(time_and_memory(group) if truly_sparse else ()),
            style="bold" if method == "RigL" else None,
        )
    return table


def accuracy_text(group: Sequence[History]) -> str:
    """The mean of the final accuracies in percent; with several seeds, also the sample standard deviation."""
    percents = [100 * history.accuracies[-1] for history in group]
    spread = f" ± {statistics.stdev(percents):.1f}" if len(percents) > 1 else ""
    return f"{statistics.mean(percents):.1f}{spread} %"


def empty_text(group: Sequence[History]) -> str:
    """The mean share of units without an active input after the training, in percent."""
    shares = [empty_share(units(history.run.layers, history.masks)) for history in group]
    return f"{100 * statistics.mean(shares):.0f} %"


def time_and_memory(group: Sequence[History]) -> tuple[str, str]:
    """Milliseconds of a step, and megabytes of parameters, gradients, optimizer state and topology."""
    milliseconds = 1000 * statistics.median(history.seconds for history in group)
    return f"{milliseconds:.2f}", "" if group[0].held is None else f"{group[0].held / 1e6:.2f}"


def costs(run: Run) -> tuple[float, float]:
    """Operations of training and of inference, relative to dense."""
    plan = run.plan
    if plan is None:
        return 1.0, 1.0
    table = cost_table(plan)
    return table.training(run.steps), table.inference
