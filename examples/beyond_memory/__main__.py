"""Train a network whose dense weights do not fit into the memory: ``python examples/beyond_memory``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "quickstart"))  # its data and the checks of its options

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli import picture_path, positive_integer
from curves import draw
from data import load
from idx import DataError
from measured import Outcome, cases, measure

WIDE = 110
"""The width, in characters, of a table that goes to a file."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all cases, print the table, draw the picture.

    Args:
        arguments: of the command line; None for those that the program was started with.
    """
    options = read_options(arguments)
    try:
        name = load(options.data, options.data_path).name
    except DataError as error:
        raise SystemExit(f"beyond_memory: {error}") from None
    data = ["--data", options.data, *(["--data-path", str(options.data_path)] if options.data_path else [])]
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    todo = list(cases(options.wide, options.width, options.density, options.megabytes))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    outcomes = []
    with Progress(*columns, console=console, disable=options.quiet, transient=True) as progress:
        bar = progress.add_task("", total=len(todo) * options.steps)
        for number, case in enumerate(todo, start=1):
            progress.update(bar, description=str(case))
            outcomes.append(measure(case, data, options.steps, lambda: progress.advance(bar)))
            progress.update(bar, completed=number * options.steps)
    console.print(to_table(outcomes, f"{name}, {options.steps} steps of Adam, batch 128, one thread"))
    draw(outcomes, f"An MLP with two hidden layers of {options.width:,} units on {name}", options.picture)
    console.print(f"The picture is in {options.picture}.", soft_wrap=True)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The checked options; a wrong one ends the program with a message."""
    parser = argparse.ArgumentParser(
        prog="beyond_memory",
        description="Train a wide network in limited memory: densely, with masks, and truly sparsely. "
        "Then compare time and memory at several densities, for a network that fits in every form.",
    )
    add = parser.add_argument
    add("--data", default="digits", metavar="NAME", help="digits, fashion-mnist or a folder of IDX files (%(default)s)")
    add("--data-path", type=Path, metavar="DIR", help="the folder of fashion-mnist's IDX files, if not Debian's")
    add("--megabytes", type=positive_integer, default=2048, metavar="M", help="the limit of memory (%(default)s)")
    add("--wide", type=positive_integer, default=16384, metavar="N", help="units of the wide network (%(default)s)")
    add("--width", type=positive_integer, default=4096, metavar="N", help="units of the other one (%(default)s)")
    shares = {"type": density, "nargs": "+", "default": [0.2, 0.1, 0.05, 0.02, 0.01]}
    add("--density", **shares, metavar="D", help="shares of active weights (0.2 0.1 0.05 0.02 0.01)")
    add("--steps", type=positive_integer, default=300, metavar="N", help="optimizer steps of each (%(default)s)")
    add("--picture", type=picture_path, default=Path("beyond_memory.png"), metavar="PATH", help="(%(default)s)")
    add("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(arguments)


def density(text: str) -> float:
    """A share of active weights, above 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 and below 1, such as 0.05")
    return value


def to_table(outcomes: Sequence[Outcome], title: str) -> Table:
    """One row for each training."""
    table = Table(title=title, caption="CPU time; memory above that of the imports and the data")
    for heading in ("hidden units", "weights", "limit, MB"):
        table.add_column(heading)
    for heading in ("accuracy", "ms a step", "seconds in all", "memory, MB"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        case = outcome.case
        how = "dense" if case.storage == "dense" else f"{case.storage}, {100 * case.density:g} %"
        limit = "none" if case.megabytes is None else f"{case.megabytes:,}"
        numbers = (
            [
                f"{outcome.accuracy:.1%}",
                f"{1000 * outcome.seconds:.0f}",
                f"{outcome.total:.0f}",
                f"{outcome.megabytes:.0f}",
            ]
            if outcome.failed is None
            else ["does not fit", "", "", ""]
        )
        table.add_row(f"{case.width:,}", how, limit, *numbers)
    return table


if __name__ == "__main__":
    main()
