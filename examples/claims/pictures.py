"""The pictures of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import Figures, Key, mean, spread

COLORS = {
    "Static": "#8d99ae",
    "SNIP": "#b08968",
    "SET": "#e9a23b",
    "SNFS": "#7b5ea7",
    "RigL": "#d1495b",
    "RigL by output": "#00798c",
    "RigL, a floor": "#f4a6b7",
    "SRigL": "#4f9d69",
    "SRigL as published": "#a7c957",
    "pruning": "#2b2d42",
    "small dense": "#c9ada7",
}
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1)
DEPTH = 15
"""The points of accuracy below a dense network down to which the picture goes."""
FORMAT = {"dpi": 150, "metadata": {"Software": None}}


def draw_costs(figures: Figures, path: Path) -> None:
    """The accuracy on images against the cost of the training, for each sparsity; a line joins lengths."""
    sparsities = sorted({key.sparsity for key in figures if key.task == "images" and key.sparsity})
    figure = Figure(figsize=(3.6 * len(sparsities), 3.8), layout="constrained")
    for axes, sparsity in zip(np.ravel(figure.subplots(1, len(sparsities))), sparsities, strict=True):
        for method, color in COLORS.items():
            keys = [key for key in figures if (key.task, key.method, key.sparsity) == ("images", method, sparsity)]
            _line(axes, figures, sorted(keys, key=lambda key: key.times), color, method)
        for key, results in figures.items():
            if key.task == "images" and key.method == "dense":
                axes.axhline(mean(results), color="black", linestyle="--", linewidth=1, label="dense")
        axes.set(xscale="log", title=f"sparsity {100 * sparsity:g} %", xlabel="operations of the training, dense = 1")
        axes.set_xticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
        axes.minorticks_off()
        axes.set_xlim(min(axes.dataLim.x0, TICKS[0]) * 0.9, 1.2)
        _cut_below(axes, figures, sparsity)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("test accuracy, %")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, **FORMAT)


def _cut_below(axes: Axes, figures: Figures, sparsity: float) -> None:
    """Leave out what is far below a dense network, and tell of it in words."""
    dense = [mean(results) for key, results in figures.items() if (key.task, key.method) == ("images", "dense")]
    lowest = max(dense, default=100.0) - DEPTH
    rows = [key for key in figures if key.task == "images" and key.sparsity == sparsity]
    below = [f"{key.name}: {mean(figures[key]):.1f}" for key in rows if mean(figures[key]) < lowest]
    axes.set_ylim(max(axes.get_ylim()[0], lowest), None)
    axes.text(0.02, 0.02, "\n".join(below), transform=axes.transAxes, fontsize=8)


def _line(axes: Axes, figures: Figures, keys: Sequence[Key], color: str, label: str) -> None:
    if keys:
        costs = [key.times * mean(figures[key], "training") for key in keys]
        heights = [mean(figures[key]) for key in keys]
        errors = [spread(figures[key]) for key in keys]
        axes.errorbar(costs, heights, errors, color=color, marker="o", markersize=4, capsize=2, label=label)


def draw_paths(curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """The training loss along each path from the Static to the pruned network."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, heights), color in zip(curves.items(), ("#d1495b", "#00798c", "#e9a23b", "#2b2d42"), strict=True):
        axes.plot(np.linspace(0, 1, len(heights)), heights, label=name, color=color)
    axes.set(xlabel="from Static (0) to pruning (1)", ylabel="training loss", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, **FORMAT)
