"""The regression check: ratios against those of an earlier run, never times."""

from __future__ import annotations

from results import Report

TOLERANCE = {"update": 1.35, "scaling": 1.5, "ordinary step": 1.08, "compile": 1.5, "memory": 1.25, "import": 1.15}
"""By how much a ratio may grow before it counts: what busy machines do to it, and some more."""


def regressions(now: Report, before: Report) -> list[str]:
    """What became slower or larger, one line each; what only one of the runs measured is left out."""
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
