"""The plot: time of an update against the number of weights."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

from results import Report


def draw(report: Report, path: Path) -> bool:
    """Draw the results of the scaling benchmark. Returns whether there are any."""
    scaling = [result for result in report.results if result.benchmark == "scaling"]
    if not scaling:
        return False
    mpl.use("Agg")
    figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name in dict.fromkeys(result.contender for result in scaling):
        own = [result for result in scaling if result.contender == name]
        axes.plot([r.facts["weights"] for r in own], [1e3 * r.least for r in own], "o-", label=name)
    own = [result for result in scaling if result.contender == scaling[0].contender]
    floor = [1e3 * min(result.baseline) for result in own]
    axes.plot([result.facts["weights"] for result in own], floor, "k--", label="memory floor")
    axes.set(xscale="log", yscale="log", xlabel="weights", ylabel="one topology update, ms")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return True
