"""The time to trace and compile a step that may move the 54 kernels of ResNet-50, minus that of the dense step."""

from __future__ import annotations

import statistics

from processes import running
from results import Result
from settings import Settings
from update import CONTENDERS, QUICK, shapes_of, start

TARGET = 3.0
COMPILED = ("jax", "tf")


def measure(settings: Settings) -> list[Result]:
    """Medians over several processes, since a process compiles only once."""
    contenders = [contender for contender in (QUICK if settings.quick else CONTENDERS) if contender.module in COMPILED]
    answers: list[list[dict[str, float]]] = [[] for _ in contenders]
    for _ in range(settings.rounds(3, 1)):
        for own, contender in zip(answers, contenders, strict=True):
            worker = start(contender, shapes_of(1), settings, task="compiling")
            with running([worker]):
                own.append(worker.ask())
    return [_result(contender.name, own) for contender, own in zip(contenders, answers, strict=True)]


def _result(name: str, answers: list[dict[str, float]]) -> Result:
    dense, sparse = ([answer[kind] for answer in answers] for kind in ("dense", "sparse"))
    over = statistics.median(there - here for there, here in zip(sparse, dense, strict=True))
    traces = max(answer["traces"] for answer in answers)
    if traces != 1:
        raise RuntimeError(f"{name} traced its step {traces} times: once must do.")
    ratio = statistics.median(sparse) / statistics.median(dense)
    return Result("compile", name, "ResNet-50", over, "s over dense", ratio, TARGET, sparse, dense)
