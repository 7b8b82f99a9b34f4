"""Train every method in every framework, and print one table: ``python examples/methods``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "quickstart"))  # its networks, loops and data

from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from cli import BACKENDS, WIDE, load_backend, positive_integer, sparsity
from comparison import to_table
from data import load
from entries import ENTRIES, Setting
from trainings import Result, train

IN_ORDER = ("numpy", "torch", "jax", "tf")
"""The frameworks, in the order of import: PyTorch goes before TensorFlow."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every method, and print the table.

    Args:
        arguments: of the command line; None for those that the program was started with.
    """
    options = read_options(arguments)
    backends = [name for name in IN_ORDER if name in options.backend]
    for backend in backends:
        load_backend(backend)
    dataset, setting = load("digits", None), Setting(options.sparsity, options.steps, seed=options.seed)
    entries = [entry for entry in ENTRIES if not options.methods or entry.name in options.methods]
    console, results = Console(width=None if sys.stdout.isatty() else WIDE), dict[tuple[str, str], Result]()
    with Progress(console=console, disable=options.quiet, transient=True) as progress, threadpool_limits(limits=1):
        bar = progress.add_task("", total=len(entries) * len(backends))
        for backend in backends:
            for entry in entries:
                progress.update(bar, description=f"{entry.name}, {backend}")
                results[entry.name, backend] = train(entry, backend, dataset, setting)
                progress.advance(bar)
    console.print(to_table(results, setting, backends))


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The checked options; a wrong one ends the program with a message."""
    parser = argparse.ArgumentParser(
        prog="methods", description="Train a small network on digits by every method, in every framework."
    )
    add = parser.add_argument
    add("--backend", nargs="+", default=list(IN_ORDER), choices=BACKENDS, help="what to train with (all)")
    add("--sparsity", type=sparsity, default=0.95, metavar="S", help="share of zeros (%(default)s)")
    add("--steps", type=positive_integer, default=1000, metavar="N", help="optimizer steps of each (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of initial weights, batches and topologies (%(default)s)")
    names = [entry.name for entry in ENTRIES]
    add("--methods", nargs="+", choices=names, metavar="NAME", help=f"only these: {', '.join(names)}")
    add("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
