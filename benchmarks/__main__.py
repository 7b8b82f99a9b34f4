"""Measure what topology updates and sparse steps cost: ``nox -s bench``, or ``python benchmarks``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

import compiling
import importing
import scaling
import sparse
import steps
import update
from plot import draw
from regression import regressions
from results import Report, Result, report_of
from settings import Settings
from table import into_text, to_table

HERE = Path(__file__).parent
BENCHMARKS: Mapping[str, Callable[[Settings], list[Result]]] = {
    "import": importing.measure,
    "update": update.measure,  # with memory
    "step": steps.measure,
    "compile": compiling.measure,
    "scaling": scaling.measure,
    "sparse": sparse.measure,
}


def main() -> int:
    """Run the benchmarks, print and write their results, and compare them with an earlier run.

    Returns:
        The exit status: 1 if a ratio grew too much, else 0.
    """
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else 200)
    settings = Settings(options.quick, options.rigl_torch)
    results: list[Result] = []
    for name in options.only or BENCHMARKS:
        console.print(f"measuring: {name}", style="dim")
        results += BENCHMARKS[name](settings)
    report = report_of(results, options.quick)
    console.print(to_table(report))
    output = HERE / "latest" if options.record else options.output
    if options.record and (output / "results.json").exists():
        report = report.over(Report.read(output / "results.json"))
    output.mkdir(parents=True, exist_ok=True)
    report.write(output / "results.json")
    draw(report, output / "time_against_size.png")
    if options.record:
        readme = HERE / "README.md"
        readme.write_text(into_text(report, readme.read_text(encoding="utf-8")), encoding="utf-8")
    worse = regressions(report, Report.read(options.check)) if options.check else []
    for line in worse:
        console.print(line, style="red")
    return bool(worse)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one model, few sizes and repetitions: under two minutes")
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), help="some of the benchmarks")
    parser.add_argument("--rigl-torch", metavar="PYTHON", help="the Python of an environment with rigl-torch 0.5.2")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="folder for JSON and plot")
    parser.add_argument("--record", action="store_true", help="write benchmarks/latest and the table in README.md")
    parser.add_argument("--check", type=Path, metavar="JSON", help="fail if ratios grew since this earlier run")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
