"""The command line: choose data and backend, train everything, print the table, draw the picture."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits

from data import Batch, load
from history import Backend, History
from idx import DataError
from picture import SUFFIXES, draw
from runs import Run, make_runs
from table import title_of, to_table

BACKENDS = sorted(path.stem.removeprefix("mlp_") for path in Path(__file__).parent.glob("mlp_*.py"))
STEPS_BETWEEN_SHOWN = 20
WIDE = 120
"""The width, in characters, of a table that goes to a file."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the quickstart.

    Args:
        arguments: of the command line; None for those that the program was started with.
    """
    options = read_options(arguments)
    backend = load_backend(options.backend)
    try:
        dataset = load(options.data, options.data_path)
    except DataError as error:
        raise SystemExit(f"quickstart: {error}") from None
    offers = getattr(backend, "offers", None)
    runs = make_runs(dataset, options.sparsity, options.seeds, options.steps, offers)
    title = title_of(runs, options.backend)
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    histories = train_all(backend, runs, console, quiet=options.quiet)
    console.print(to_table(histories, title))
    draw(histories, title, options.picture)
    console.print(f"The picture is in {options.picture}.", soft_wrap=True)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The checked options; a wrong one ends the program with a message."""
    parser = argparse.ArgumentParser(
        prog="quickstart",
        description="Train a small network densely and sparsely (Static, SET, RigL) on real images; "
        "print accuracies and costs, and draw what happened.",
    )
    add = parser.add_argument
    add("--data", default="digits", metavar="NAME", help="digits, fashion-mnist or a folder of IDX files (%(default)s)")
    add("--data-path", type=Path, metavar="DIR", help="the folder of fashion-mnist's IDX files, if not Debian's")
    add("--backend", default="torch", choices=BACKENDS, help="what to train with (%(default)s)")
    add("--sparsity", type=sparsity, nargs="+", default=[0.98, 0.99], metavar="S", help="shares of zeros (0.98 0.99)")
    add("--seeds", type=positive_integer, default=3, metavar="N", help="trainings of each kind (%(default)s)")
    add("--steps", type=positive_integer, default=2000, metavar="N", help="optimizer steps of each (%(default)s)")
    add(
        "--picture",
        type=picture_path,
        default=Path("quickstart.png"),
        metavar="PATH",
        help="what to draw (%(default)s)",
    )
    add("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    if options.data_path is not None and options.data != "fashion-mnist":
        parser.error("argument --data-path: it goes with --data fashion-mnist")
    options.sparsity = list(dict.fromkeys(options.sparsity))
    return options


def positive_integer(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def sparsity(text: str) -> float:
    """A share of zeros, from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to below 1, such as 0.98")
    return value


def picture_path(text: str) -> Path:
    """The path of the picture. It is checked before minutes of training."""
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} must end in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder {str(path.parent)!r} does not exist: make it first")
    return path


def load_backend(name: str) -> Backend:
    """The module that trains with one framework; no other framework is imported."""
    try:
        importlib.import_module(f"rigl_backends.{name}")
    except ImportError as error:  # the message says what to install
        raise SystemExit(f"quickstart: {error}") from None
    return cast(Backend, importlib.import_module(f"mlp_{name}"))


def train_all(backend: Backend, runs: Sequence[Run], console: Console, *, quiet: bool) -> list[History]:
    """Train the runs one after the other, with a progress bar.

    They use one thread: for such small matrices, more threads cost more than they save, above all on a busy machine.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=console, disable=quiet, transient=True)
    with shown as progress, threadpool_limits(limits=1):
        bar = progress.add_task("", total=sum(run.steps for run in runs))
        return [backend.train(run, shown_batches(run, progress, bar)) for run in runs]


def shown_batches(run: Run, progress: Progress, bar: TaskID) -> Iterator[Batch]:
    """The batches of a run; each moves the progress bar on."""
    percent = f" {100 * run.sparsity:g} %" if run.recipe else ""
    progress.update(bar, description=f"{run.method}{percent}, seed {run.seed}")
    for step, batch in enumerate(run.batches(), start=1):
        yield batch
        if step % STEPS_BETWEEN_SHOWN == 0 or step == run.steps:
            progress.update(bar, advance=(step - 1) % STEPS_BETWEEN_SHOWN + 1)
