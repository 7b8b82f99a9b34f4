"""The results of benchmarks, as plain data."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

ORDER = (
    *("import", "update", "memory", "ordinary step", "compile", "scaling"),
    *("sparse", "sparse threads", "sparse sizes", "sparse block", "sparse update"),
    *("sparse convolution", "sparse serving", "sparse step", "sparse jax", "sparse call", "sparse tf"),
)
PACKAGES = ("numpy", "torch", "jax", "optax", "flax", "tensorflow-cpu", "keras")


@dataclass(frozen=True)
class Result:
    """One contender in one benchmark.

    Attributes:
        benchmark: its name, such as ``update``.
        contender: the name of the implementation that is measured.
        subject: the model, and the optimizer where there are several.
        figure: the number that the target limits, such as the time in memory floors.
        unit: of the figure.
        ratio: a number without a unit, to compare with other runs.
        target: the largest allowed figure; None if there is no target.
        seconds: of every repetition.
        baseline: seconds of every repetition of the thing that the figure compares with.
        facts: other numbers, such as ``weights`` or ``x faster than rigl-torch``.
    """

    benchmark: str
    contender: str
    subject: str
    figure: float
    unit: str
    ratio: float
    target: float | None = None
    seconds: Sequence[float] = ()
    baseline: Sequence[float] = ()
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """The names that identify the same measurement in two runs."""
        return self.benchmark, self.contender, self.subject

    @property
    def missed(self) -> bool:
        """Whether the figure is above its target."""
        return self.target is not None and self.figure > self.target

    @property
    def least(self) -> float:
        """The shortest repetition, in seconds."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The median repetition, in seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Report:
    """All results of one run, with the machine and the versions of the packages."""

    results: Sequence[Result]
    machine: str
    versions: dict[str, str]
    quick: bool

    def write(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report in a file that `write` wrote."""
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**data, "results": [Result(**result) for result in data["results"]]})

    def over(self, earlier: Report) -> Report:
        """This report, with the benchmarks that only an earlier report has, if machine and versions are the same."""
        if (earlier.machine, earlier.versions, earlier.quick) != (self.machine, self.versions, self.quick):
            return self
        measured = {result.benchmark for result in self.results}
        others = [result for result in earlier.results if result.benchmark not in measured]
        return replace(self, results=_in_order([*others, *self.results]))


def report_of(results: Sequence[Result], quick: bool) -> Report:
    """A report of these results, with this machine and the installed versions."""
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = metadata.version(package)
    return Report(_in_order(results), _machine(), versions, quick)


def _in_order(results: Sequence[Result]) -> list[Result]:
    return sorted(results, key=lambda result: ORDER.index(result.benchmark))


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {cores} cores, {memory:.0f} GiB, {platform.system()}"
