"""Train cases in several processes. What is done is kept in a file, so that a run that was stopped goes on."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cases import Case
from walks import Walk

if TYPE_CHECKING:
    from tasks import Task

Job = Case | Walk


@dataclass(frozen=True)
class Sources:
    """Where the data come from.

    Attributes:
        data: name of a data set of images, as in the quickstart.
        folder: the folder of ``fashion-mnist``, if not Debian's.
        text: a text file; None for the reference of Python's own help.
    """

    data: str
    folder: Path | None = None
    text: Path | None = None

    def task(self, name: str) -> Task:
        """The task with this name.

        Raises:
            DataError: if its data are missing or broken.
        """
        from images import Images  # each process imports PyTorch by itself
        from text import Text

        return Text(self.text) if name == "text" else Images(self.data, self.folder)


_tasks: dict[tuple[Sources, str], Task] = {}
"""What this process has loaded."""


def do(job: Job, sources: Sources) -> dict[str, Any]:
    """Do a job in this process, on one thread."""
    import torch

    from landscape import walk
    from training import train

    torch.set_num_threads(1)
    if (sources, job.task) not in _tasks:
        _tasks[sources, job.task] = sources.task(job.task)
    task = _tasks[sources, job.task]
    return asdict(train(job, task) if isinstance(job, Case) else walk(job, task))


class Results:
    """What jobs gave, in a file of one JSON object for each line."""

    def __init__(self, path: Path, sources: Sources) -> None:
        self._path, self._sources = path, str(sources)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._done: dict[str, dict[str, Any]] = {line["job"]: line["result"] for line in map(json.loads, lines)}

    def __contains__(self, job: Job) -> bool:
        return self._key(job) in self._done

    def __getitem__(self, job: Job) -> dict[str, Any]:
        return self._done[self._key(job)]

    def add(self, job: Job, result: dict[str, Any]) -> None:
        """Keep a result."""
        self._done[self._key(job)] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": self._key(job), "result": result}) + "\n")

    def _key(self, job: Job) -> str:
        return f"{job} on {self._sources}"


def do_all(
    jobs: Iterable[Job], results: Results, sources: Sources, console: Console, *, processes: int, quiet: bool
) -> None:
    """Do the jobs that have no result yet; the longest ones first."""
    todo = sorted((job for job in dict.fromkeys(jobs) if job not in results), key=lambda job: -job.cost)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet, transient=True)
    fresh = multiprocessing.get_context("spawn")
    with shown as progress, ProcessPoolExecutor(processes, mp_context=fresh) as pool:
        bar = progress.add_task("", total=sum(job.cost for job in todo))
        futures = {pool.submit(do, job, sources): job for job in todo}
        for future in as_completed(futures):
            job = futures[future]
            results.add(job, future.result())
            progress.update(bar, advance=job.cost, description=f"{job.task}, {job.method}")
