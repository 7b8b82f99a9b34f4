"""Hyper-parameters: six trainings for each method, task and sparsity, judged on the validation part."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from cases import LOWER_IS_BETTER, MOVING, Case, Result, Setting, compared

PATH = Path(__file__).with_name("tuned.json")
SEED = 100
"""The seed of all trainings that tune. Those that are shown have others."""
RATES = {"images": (0.05, 0.08, 0.12, 0.2, 0.32, 0.5), "text": (0.003, 0.005, 0.008, 0.012, 0.02, 0.03)}
ALPHAS = (0.1, 0.3)
Name = tuple[str, str, float]
"""Task, method, sparsity."""


def candidates(task: str, method: str) -> list[Setting]:
    """Six settings: three learning rates with two of α; six learning rates for methods that do not read α."""
    if method in MOVING:
        return [Setting(rate, alpha) for rate, alpha in itertools.product(RATES[task][1::2], ALPHAS)]
    return [Setting(rate) for rate in RATES[task]]


def trials(task: str, steps: int) -> Iterator[Case]:
    """The trainings that tune one task."""
    for method, sparsity in compared(task):
        for setting in candidates(task, method):
            yield Case(task, method, sparsity, setting, steps, SEED, "validation")


def best_of(results: Mapping[Case, Result]) -> dict[Name, Setting]:
    """The best setting of each method, task and sparsity."""
    best: dict[Name, Case] = {}
    for case, result in results.items():
        name = (case.task, case.method, case.sparsity)
        if name not in best or _better(case.task, result.score, results[best[name]].score):
            best[name] = case
    return {name: case.setting for name, case in best.items()}


def write(settings: Mapping[Name, Setting]) -> None:
    """Replace the file."""
    lines = [json.dumps([*name, asdict(setting)]) for name, setting in sorted(settings.items())]
    PATH.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def read() -> dict[Name, Setting]:
    """The settings of the file."""
    lines = json.loads(PATH.read_text(encoding="utf-8"))
    return {(task, method, sparsity): Setting(**parts) for task, method, sparsity, parts in lines}


def _better(task: str, score: float, other: float) -> bool:
    return score < other if task in LOWER_IS_BETTER else score > other
