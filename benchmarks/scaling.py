"""Updates of 1 to 200 million weights: ResNet-50's kernels, at other widths."""

from __future__ import annotations

import math

from processes import in_turns, running
from results import Result
from settings import Settings
from update import CONTENDERS, shapes_of, start, timed

WIDTHS = (0.2, 0.35, 0.63, 1.12, 2.0, 2.8)
"""Factors of ResNet-50's channels, for 1, 3, 10, 32, 102 and 200 million weights."""
QUICK_WIDTHS = (0.2, 0.63)


def measure(settings: Settings) -> list[Result]:
    """The time of an update at each size. A quick run measures only NumPy and torch."""
    contenders = CONTENDERS[:2] if settings.quick else CONTENDERS[:4]
    results = []
    for width in QUICK_WIDTHS if settings.quick else WIDTHS:
        shapes = shapes_of(width)
        weights = sum(math.prod(shape) for _, shape in shapes)
        at_once = len(contenders) if weights < 5e7 else 1
        for first in range(0, len(contenders), at_once):
            group = contenders[first : first + at_once]
            workers = [start(contender, shapes, settings) for contender in group]
            with running(workers):
                answers = in_turns(workers, settings.rounds(9, 5))
            results += [
                timed("scaling", contender, own, weights) for contender, own in zip(group, answers, strict=True)
            ]
    return results
