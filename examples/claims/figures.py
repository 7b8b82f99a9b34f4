"""Means, deviations and comparisons of trainings with several seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cases import LOWER_IS_BETTER, Result


@dataclass(frozen=True)
class Key:
    """What the trainings of one row share.

    Attributes:
        task: ``"images"`` or ``"text"``.
        method: its name.
        sparsity: share of zeros; 0 for dense.
        times: the length, as a multiple of the usual one.
    """

    task: str
    method: str
    sparsity: float
    times: int = 1

    @property
    def name(self) -> str:
        """The method, and the length if it is not the usual one."""
        return self.method if self.times == 1 else f"{self.method} ×{self.times}"


Figures = Mapping[Key, Sequence[Result]]


def spread(results: Sequence[Result]) -> float:
    """The standard deviation of the measures; 0 for a single seed."""
    return statistics.stdev(result.score for result in results) if len(results) > 1 else 0.0


def mean(results: Sequence[Result], of: str = "score") -> float:
    """The mean of an attribute of `Result`."""
    return statistics.fmean(getattr(result, of) for result in results)


@dataclass(frozen=True)
class Comparison:
    """What a claim says is better, beside something else.

    Attributes:
        sparsity: of both.
        gain: by how much it is better; negative if it is worse.
        error: twice the standard error of this difference.
    """

    sparsity: float
    gain: float
    error: float

    @property
    def verdict(self) -> str:
        """Whether the claim holds here."""
        if abs(self.gain) <= self.error:
            return "no clear difference"
        return "holds" if self.gain > 0 else "does not hold"

    def __str__(self) -> str:
        return f"{100 * self.sparsity:g} %: {self.gain:+.2f} ± {self.error:.2f}"


def compare(figures: Figures, better: Key, worse: Key) -> Comparison:
    """Compare two rows. One seed tells no error, so it gives no clear difference."""
    first, second = figures[better], figures[worse]
    gain = mean(first) - mean(second)
    error = 2 * math.sqrt(spread(first) ** 2 / len(first) + spread(second) ** 2 / len(second))
    unknown = min(len(first), len(second)) < 2
    sign = -1 if better.task in LOWER_IS_BETTER else 1
    return Comparison(better.sparsity, sign * gain, math.inf if unknown else error)


def difference(sparsity: float, gains: Sequence[float]) -> Comparison:
    """The comparison of two kinds of trainings that share their seeds, by the gain of each seed."""
    error = 2 * statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    return Comparison(sparsity, statistics.fmean(gains), error)
