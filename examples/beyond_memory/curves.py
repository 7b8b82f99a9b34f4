"""The picture: time and memory of a step against the density."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from measured import Outcome

COLORS = {"dense": "#666666", "masks": "#d1495b", "active": "#00798c"}
LABELS = {"dense": "dense", "masks": "sparse, with masks", "active": "truly sparse"}


def draw(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """Draw the trainings without a limit, which are all of one width."""
    free = [outcome for outcome in outcomes if outcome.case.megabytes is None and outcome.failed is None]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    time, memory = figure.subplots(1, 2)
    draw_lines(time, free, [1000 * outcome.seconds for outcome in free], "milliseconds of a step")
    draw_lines(memory, free, [outcome.megabytes for outcome in free], "megabytes of the training")
    time.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def draw_lines(axes: Axes, outcomes: Sequence[Outcome], heights: Sequence[float], unit: str) -> None:
    """A line for each way to hold the weights; dense weights cost what they cost at any density."""
    for storage, label in LABELS.items():
        points = [(o.case.density, h) for o, h in zip(outcomes, heights, strict=True) if o.case.storage == storage]
        if storage == "dense":
            for _, height in points:
                axes.axhline(height, color=COLORS[storage], linestyle="--", label=label)
        elif points:
            axes.plot(*zip(*points, strict=True), color=COLORS[storage], marker="o", label=label)
    axes.set(xscale="log", xlabel="density of the hidden layers", ylabel=unit, ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda density, _: f"{100 * density:g} %")
    axes.spines[["top", "right"]].set_visible(False)
