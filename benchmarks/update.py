"""One topology update of ResNet-50: its time in memory floors, and its memory in sizes of the largest layer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from processes import Worker, in_turns, running
from results import Result
from rigl_core.costs.specs import resnet50
from settings import Settings
from subjects import Shapes

MEMORY_TARGET = 2.0


@dataclass(frozen=True)
class Contender:
    """An implementation to measure; its target is the most memory floors that an update may take."""

    name: str
    module: str
    target: float | None = None
    options: dict[str, bool] = field(default_factory=dict)
    momentum: bool = False


CONTENDERS = (
    Contender("NumPy", "numpy", 9),
    Contender("torch", "torch", 9),
    Contender("JAX, jit", "jax", 30),
    Contender("TF, function", "tf", 15),
    Contender("TF, XLA", "tf", 80, {"xla": True}),
)
QUICK = CONTENDERS[:4]
WITH_MOMENTUM = tuple(
    replace(contender, momentum=True, target=None) for contender in CONTENDERS if contender.name != "TF, XLA"
)
RIGL_TORCH = Contender("rigl-torch", "rigl_torch")


def shapes_of(width: float) -> Shapes:
    """Names and shapes of ResNet-50's kernels, with ``width`` times as many channels."""
    return tuple((layer.name.replace(".", "_"), layer.shape) for layer in resnet50(width))


def start(contender: Contender, shapes: Shapes, settings: Settings, task: str = "update") -> Worker:
    """Start a process that measures updates."""
    request = {"module": contender.module, "shapes": shapes, "options": contender.options}
    return Worker({"task": task, "momentum": contender.momentum, **request}, settings.python_of(contender.module))


def measure(settings: Settings) -> list[Result]:
    """Time and memory of one update."""
    if settings.quick:
        return _measure_time(QUICK, settings) + _measure_memory(QUICK[:2], settings)
    results = []
    for contenders in (CONTENDERS + (RIGL_TORCH,) * bool(settings.rigl_torch), WITH_MOMENTUM):
        results += _measure_time(contenders, settings) + _measure_memory(contenders, settings)
    return results


def _measure_time(contenders: Sequence[Contender], settings: Settings) -> list[Result]:
    shapes = shapes_of(1)
    weights = sum(math.prod(shape) for _, shape in shapes)
    workers = [start(contender, shapes, settings) for contender in contenders]
    with running(workers):
        few = settings.rounds(3, 1)  # a slow contender proves its point in a few rounds
        answers = in_turns(workers, few)
        fast = [i for i, contender in enumerate(contenders) if contender is not RIGL_TORCH]
        more = in_turns([workers[i] for i in fast], settings.rounds(25, 7) - few)
        for i, own in zip(fast, more, strict=True):
            answers[i] += own
    times = [timed("update", contender, own, weights) for contender, own in zip(contenders, answers, strict=True)]
    return [compared(result, times[-1]) for result in times]


def _measure_memory(contenders: Sequence[Contender], settings: Settings) -> list[Result]:
    results = []
    for contender in contenders:
        worker = start(contender, shapes_of(1), settings, task="memory")
        with running([worker]):
            (answers,) = in_turns([worker], settings.rounds(3, 1))
        results.append(_memory(contender, answers))
    return results


def timed(benchmark: str, contender: Contender, answers: Sequence[dict[str, float]], weights: int) -> Result:
    """The median of the repetitions' ratios. Each ratio is to the floor measured before and after the repetition."""
    seconds = [answer["seconds"] for answer in answers]
    floor = [answer["floor"] for answer in answers]
    ratio = statistics.median(time / copy for time, copy in zip(seconds, floor, strict=True))
    return Result(
        benchmark,
        contender.name,
        _subject(contender) if benchmark == "update" else f"{weights / 1e6:.0f} M weights",
        figure=ratio,
        unit="x floor",
        ratio=ratio,
        target=contender.target,
        seconds=seconds,
        baseline=floor,
        facts={"weights": weights, "x floor, minima": min(seconds) / min(floor)},
    )


def compared(result: Result, slowest: Result) -> Result:
    """The result with its speed relative to rigl-torch's, if rigl-torch was measured."""
    if slowest.contender != RIGL_TORCH.name:
        return result
    return replace(result, facts={**result.facts, "x faster than rigl-torch": slowest.median / result.median})


def _memory(contender: Contender, answers: Sequence[dict[str, int]]) -> Result:
    layers = max(answer["bytes"] / answer["layer"] for answer in answers)
    return Result(
        "memory",
        contender.name,
        _subject(contender),
        figure=layers,
        unit="layers",
        ratio=layers,
        target=None if contender is RIGL_TORCH else MEMORY_TARGET,
    )


def _subject(contender: Contender) -> str:
    return "ResNet-50, momentum" if contender.momentum else "ResNet-50"
