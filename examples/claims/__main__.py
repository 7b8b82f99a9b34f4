"""Check the paper's claims on small networks, and write a page about it: ``python examples/claims``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "quickstart"))  # its data and the checks of its options

from rich.console import Console

import tuned
from cases import EVERY, TIMES, Case, Result, Setting, compared, schedule_of
from cli import positive_integer
from figures import Figures, Key
from idx import DataError
from page import About, page
from pictures import draw_costs, draw_paths
from runner import Job, Results, Sources, do_all
from walks import View, Walk

PARTS = ("images", "text", "landscape")
LONG = ("Static", "SET", "RigL", "RigL by output", "pruning")
"""The methods that are also trained three times as long, on images."""
Settings = Mapping[tuned.Name, Setting]
LANDSCAPE = 0.95
"""The sparsity of the networks in the landscape."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what has no result yet, and write the page.

    Args:
        arguments: of the command line; None for those that the program was started with.
    """
    options = read_options(arguments)
    sources = Sources(options.data, options.data_path, options.text)
    try:
        names = {name: sources.task(name).name for name in ("images", "text")}
    except DataError as error:
        raise SystemExit(f"claims: {error}") from None
    options.folder.mkdir(parents=True, exist_ok=True)
    results = Results(options.folder / "results.jsonl", sources)
    if options.tune:
        tune(options, results, sources)
    settings = tuned.read()
    jobs = {key: rows for key, rows in rows_of(options, settings).items() if key.task in options.only}
    walks = list(walks_of(options, settings)) if "landscape" in options.only else []
    run(options, [*walks, *(case for cases in jobs.values() for case in cases)], results, sources)
    figures = {key: [Result(**results[case]) for case in cases] for key, cases in jobs.items()}
    about = About(options.task_steps, settings, EVERY, schedule_of(options.steps).updates, LANDSCAPE, names)
    write(options, figures, [View(**results[walk]) for walk in walks], about)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The checked options; a wrong one ends the program with a message."""
    parser = argparse.ArgumentParser(
        prog="claims",
        description="Train small networks by every method, on images and on text; compare them with the claims of the "
        "RigL paper, and write a page with tables and pictures. A run that was stopped goes on.",
    )
    add = parser.add_argument
    add("--data", default="fashion-mnist", metavar="NAME", help="fashion-mnist, digits or a folder of IDX files")
    add("--data-path", type=Path, metavar="DIR", help="the folder of fashion-mnist's IDX files, if not Debian's")
    add("--text", type=Path, metavar="PATH", help="a text file in UTF-8 (the reference of Python's own help)")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="only these parts of the page")
    add("--seeds", type=positive_integer, default=3, metavar="N", help="trainings of each kind (%(default)s)")
    add("--steps", type=positive_integer, default=1500, metavar="N", help="of a training on images (%(default)s)")
    add("--text-steps", type=positive_integer, default=600, metavar="N", help="of a training on text (%(default)s)")
    add("--tune", action="store_true", help="first choose the hyper-parameters again, and write tuned.json")
    add("--quick", action="store_true", help="one seed and a few steps: to see that everything works")
    processes = os.cpu_count() or 1
    add("--processes", type=positive_integer, default=processes, metavar="N", help="at a time (%(default)s here)")
    add("--folder", type=Path, default=Path("claims"), metavar="DIR", help="keeps results and the page (%(default)s)")
    add(
        "--page", type=Path, metavar="PATH", help="the page to write, with pictures in images beside it (DIR/claims.md)"
    )
    add("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    if options.quick and options.tune:
        parser.error("argument --tune: a few steps choose nothing; leave out --quick")
    if options.quick:
        options.seeds, options.steps, options.text_steps = 1, 20, 8
    options.page = options.page or options.folder / "claims.md"
    options.task_steps = {"images": options.steps, "text": options.text_steps}
    return options


def run(options: argparse.Namespace, jobs: Iterable[Job], results: Results, sources: Sources) -> None:
    """Do what is not done yet, with a progress bar."""
    do_all(jobs, results, sources, Console(), processes=options.processes, quiet=options.quiet)


def tune(options: argparse.Namespace, results: Results, sources: Sources) -> None:
    """Choose the hyper-parameters of all tasks, and write them."""
    trials = [case for task, steps in options.task_steps.items() for case in tuned.trials(task, steps)]
    run(options, trials, results, sources)
    tuned.write(tuned.best_of({case: Result(**results[case]) for case in trials}))


def rows_of(options: argparse.Namespace, settings: Settings) -> dict[Key, list[Case]]:
    """The trainings of each row: one for each seed."""
    rows = {}
    for task, steps in options.task_steps.items():
        for method, sparsity in compared(task):
            case = Case(task, method, sparsity, settings[task, method, sparsity], steps)
            for times in (1, TIMES) if task == "images" and method in LONG else (1,):
                cases = [replace(case, steps=times * steps, seed=seed) for seed in range(options.seeds)]
                rows[Key(task, method, sparsity, times)] = cases
    return rows


def walks_of(options: argparse.Namespace, settings: Settings) -> Iterable[Walk]:
    """A look at the landscape for each seed."""
    own = tuple((method, settings["images", method, LANDSCAPE]) for method in ("Static", "RigL", "pruning"))
    return (Walk(LANDSCAPE, own, options.steps, seed) for seed in range(options.seeds))


def write(options: argparse.Namespace, figures: Figures, views: Sequence[View], about: About) -> None:
    """Write the page and its pictures."""
    pictures = options.page.parent / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    if "images" in options.only:
        draw_costs(figures, pictures / "claims_costs.png")
    if views:
        draw_paths(views[0].curves, pictures / "claims_paths.png")
    options.page.write_text(page(figures, views, about, "images"), encoding="utf-8")
    print(f"The page is {options.page}.")


if __name__ == "__main__":
    main()
