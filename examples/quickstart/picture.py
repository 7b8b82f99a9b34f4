"""The picture: how each method learns, how its topology moves, and where RigL looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from history import History, by_method
from runs import DENSE, TRULY_SPARSE, Run

SUFFIXES = (".png", ".svg", ".pdf")

COLORS = {DENSE: "#777777", "Static": "#e69f00", "SET": "#0072b2", "RigL": "#c2185b", TRULY_SPARSE: "#00897b"}
INK = "#333333"
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ebebeb",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "image.cmap": "magma",
}

Groups = Mapping[str, Sequence[History]]


def draw(histories: Sequence[History], title: str, path: Path) -> None:
    """Write the picture, one row for each sparsity.

    Args:
        histories: the records of all trainings.
        title: the title of the picture.
        path: the file, in a format of ``SUFFIXES``.
    """
    groups = by_method(histories)
    sparsities = list(dict.fromkeys(history.run.sparsity for history in histories if history.run.recipe))
    methods = list(dict.fromkeys(method for method, _ in groups))
    with matplotlib.rc_context(STYLE):
        times = TRULY_SPARSE in methods
        figure = Figure(
            figsize=(14 + 3 * times, 0.7 + 3.3 * len(sparsities)),
            layout=ConstrainedLayoutEngine(wspace=0.03, hspace=0.06),
        )
        label_figure(figure, title, methods)
        widths = [1.7, 1.25, 1, 1, 1] + [1.1] * times
        rows = figure.subplots(len(sparsities), len(widths), squeeze=False, width_ratios=widths)
        for axes, sparsity in zip(rows, sparsities, strict=True):
            shown = {method: group for (method, own), group in groups.items() if method == DENSE or own == sparsity}
            if times:
                draw_times(axes[5], {method: shown[method] for method in (DENSE, "RigL", TRULY_SPARSE)})
                del shown[TRULY_SPARSE]  # it learns as RigL does
            draw_accuracy(axes[0], shown, sparsity)
            draw_changes(axes[1], shown)
            draw_pixels(axes[2:5], shown["RigL"])
            for ax in axes[:2]:
                label_steps(ax, histories[0].run.steps)
        figure.savefig(path, dpi=100)


def label_figure(figure: Figure, title: str, methods: Sequence[str]) -> None:
    """Write the title, the legend, and a line that says how to read the plots."""
    figure.suptitle(title, x=0.008, ha="left", fontsize=14, fontweight="bold")
    figure.supxlabel(
        "Lines and maps: mean of the seeds; bands: from the worst seed to the best. "
        "r: correlation with the pixels' standard deviation.",
        x=0.008,
        ha="left",
        fontsize=9,
    )
    lines = [Line2D([], [], color=COLORS[method], label=method, linewidth=3) for method in methods]
    figure.legend(handles=lines, loc="outside upper right", ncols=len(methods), fontsize=11)


def draw_accuracy(axes: Axes, groups: Groups, sparsity: float) -> None:
    """Test accuracy over steps, with each method's last value at the right."""
    last_values = {}
    for method, group in groups.items():
        accuracies = np.array([history.accuracies for history in group])
        last_values[method] = draw_line(axes, method, group[0].test_steps, accuracies)
    axes.set(title=f"Test accuracy at {100 * sparsity:g} % sparsity", ylabel="% of the test images", ylim=(0, 102))
    heights = spread(list(last_values.values()), gap=7)
    at_the_right: Any = {"x": 1.01, "va": "center", "transform": axes.get_yaxis_transform()}
    for (method, value), height in zip(last_values.items(), heights, strict=True):
        axes.text(y=height, s=f"{value:.1f} %", color=COLORS[method], **at_the_right)


def draw_times(axes: Axes, groups: Groups) -> None:
    """The wall time of a step, with the megabytes that are held."""
    seconds = {method: float(np.median([history.seconds for history in group])) for method, group in groups.items()}
    places = range(len(seconds))
    lengths, colors = [1000 * second for second in seconds.values()], [COLORS[method] for method in seconds]
    axes.barh(places, lengths, height=0.55, color=colors)
    for place, (method, second) in enumerate(seconds.items()):
        held = groups[method][0].held
        text = f" {1000 * second:.2f} ms" + ("" if held is None else f", {held / 1e6:.2f} MB")
        axes.text(0, place - 0.28, text, va="bottom", fontsize=9)
    axes.set(title="Time and memory", xlabel="milliseconds of a step", yticks=[], ylim=(len(seconds) - 0.5, -0.6))


def draw_changes(axes: Axes, groups: Groups) -> None:
    """Share of the active connections that each update replaced by others."""
    for method, group in groups.items():
        if group[0].update_steps:
            changed = np.array([history.changed for history in group])
            draw_line(axes, method, group[0].update_steps, changed, marker=".")
    axes.set(title="Change at each update", ylabel="% of the active connections", ylim=(0, None))


def draw_pixels(axes: Sequence[Axes], group: Sequence[History]) -> None:
    """Where the images vary, and how many connections RigL gives each pixel at the start and at the end."""
    run = group[0].run
    variation = run.dataset.train_images.std(axis=0)
    start = np.mean([history.pixels_at_start for history in group], axis=0)
    end = np.mean([history.pixels_at_end for history in group], axis=0)
    highest = max(start.max(), end.max())
    draw_map(axes[0], run, variation, "Pixels that vary", "standard deviation", cmap="gray")
    for ax, when, pixels in ((axes[1], "before", start), (axes[2], "after", end)):
        unit = "connections per pixel" + agreement(pixels, variation)
        draw_map(ax, run, pixels, f"RigL, {when} training", unit, vmax=highest)


def draw_map(axes: Axes, run: Run, pixels: npt.NDArray[Any], title: str, unit: str, **style: Any) -> None:
    """One value for each pixel, as an image, with its scale below."""
    image = axes.imshow(pixels.reshape(run.dataset.picture_shape), vmin=0, **style)
    axes.set(title=title, xticks=[], yticks=[], anchor="N")
    axes.spines[:].set_visible(False)
    scale = axes.inset_axes((0, -0.08, 1, 0.035))
    axes.figure.colorbar(image, cax=scale, orientation="horizontal", label=unit).outline.set_visible(False)


def draw_line(axes: Axes, method: str, steps: Sequence[int], shares: npt.NDArray[np.float64], **style: Any) -> float:
    """The mean of all seeds in percent, in a band from the lowest seed to the highest. Returns the last mean."""
    percents = 100 * shares
    mean = percents.mean(axis=0)
    axes.plot(steps, mean, color=COLORS[method], **style)
    axes.fill_between(steps, percents.min(axis=0), percents.max(axis=0), color=COLORS[method], alpha=0.18, linewidth=0)
    return float(mean[-1])


def label_steps(axes: Axes, steps: int) -> None:
    """The horizontal axis of a training."""
    axes.set(xlabel="optimizer step", xlim=(-0.01 * steps, 1.01 * steps))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def agreement(connections: npt.NDArray[np.float64], variation: npt.NDArray[np.float32]) -> str:
    """How well the connections follow the variation, as text; nothing if either is the same everywhere."""
    if connections.std() == 0 or variation.std() == 0:
        return ""
    return f", r = {np.corrcoef(connections, variation)[0, 1]:z.2f}".replace("-", "\N{MINUS SIGN}")


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights of labels. Lower ones are moved down, so that labels are at least ``gap`` apart."""
    placed: dict[int, float] = {}
    ceiling = float("inf")
    for i in sorted(range(len(heights)), key=lambda i: -heights[i]):
        placed[i] = min(heights[i], ceiling)
        ceiling = placed[i] - gap
    return [placed[i] for i in range(len(heights))]
