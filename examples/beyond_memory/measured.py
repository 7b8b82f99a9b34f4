"""The trainings to compare, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAINING = Path(__file__).with_name("training.py")


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        width: of the two hidden layers.
        storage: ``"dense"``, ``"masks"`` or ``"active"``.
        density: of the hidden layers; 1 for a dense training.
        megabytes: the address space that the process may take; None for no limit.
    """

    width: int
    storage: str
    density: float = 1.0
    megabytes: int | None = None

    def __str__(self) -> str:
        how = "dense" if self.storage == "dense" else f"{self.storage} at {100 * self.density:g} %"
        return f"{self.width:,} wide, {how}"


@dataclass(frozen=True)
class Outcome:
    """What a training gave.

    Attributes:
        case: the training.
        failed: why it found no memory; None if it did.
        accuracy: the share of the test images that are classified correctly.
        seconds: CPU time of an ordinary step, by the median.
        total: CPU time of all steps, with the updates.
        megabytes: the most memory held, above that after the imports and with the data.
    """

    case: Case
    failed: str | None = None
    accuracy: float = 0.0
    seconds: float = 0.0
    total: float = 0.0
    megabytes: float = 0.0


def cases(wide: int, narrow: int, densities: Sequence[float], megabytes: int) -> Iterator[Case]:
    """A wide network in little memory; then a narrower one, of several densities, without a limit."""
    sparsest = min(densities)
    yield Case(wide, "dense", megabytes=megabytes)
    for storage in ("masks", "active"):
        yield Case(wide, storage, sparsest, megabytes)
    yield Case(narrow, "dense")
    for storage in ("masks", "active"):
        for density in sorted(densities, reverse=True):
            yield Case(narrow, storage, density)


def measure(case: Case, data: Sequence[str], steps: int, on_step: Callable[[], object]) -> Outcome:
    """Train, and report each step.

    Args:
        case: the training.
        data: the options of the command line that say which data.
        steps: of the training.
        on_step: is called after each step.

    Raises:
        RuntimeError: if the process ended otherwise than by lack of memory; with what it printed.
    """
    command = [sys.executable, str(TRAINING), *data, "--steps", str(steps), "--width", str(case.width)]
    command += ["--storage", case.storage, "--density", str(case.density)]
    command += [] if case.megabytes is None else ["--megabytes", str(case.megabytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        last: Mapping[str, Any] = {}
        for line in process.stdout:
            last = json.loads(line)
            if "loss" in last:
                on_step()
        errors = process.stderr.read()
    if process.returncode or not ({"failed", "accuracy"} & set(last)):
        raise RuntimeError(f"the training of {case} ended with {process.returncode}: {errors.strip()}")
    return Outcome(case, **last)
