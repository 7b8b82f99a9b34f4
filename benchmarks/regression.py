"""The regression check: it compares ratios with those of an earlier run, never times."""

from __future__ import annotations

from results import Report

TOLERANCE = {
    "update": 1.35,
    "scaling": 1.5,
    "ordinary step": 1.08,
    "compile": 1.5,
    "memory": 1.25,
    "import": 1.15,
    "sparse": 1.3,
    "sparse threads": 1.3,
    "sparse sizes": 1.3,
    "sparse block": 1.3,
    "sparse update": 1.3,
    "sparse convolution": 1.3,
    "sparse step": 1.15,
}
"""The factor by which a ratio may grow: somewhat more than a busy machine changes it."""


def regressions(now: Report, before: Report) -> list[str]:
    """One line for each result that became slower or larger. Results that only one of the runs has are left out."""
    known = {result.key: result for result in before.results}
    lines = []
    for result in now.results:
        earlier = known.get(result.key)
        if earlier is None or result.contender == "rigl-torch":
            continue
        most = TOLERANCE[result.benchmark] * earlier.ratio
        if result.ratio > most:
            name = ", ".join(part for part in result.key if part)
            lines.append(f"{name}: the ratio was {earlier.ratio:.3g} and is {result.ratio:.3g}, above {most:.3g}.")
    return lines
