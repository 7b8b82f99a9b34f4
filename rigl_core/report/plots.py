"""Plots, without pyplot and its global state: ``plots.churn(history).savefig("churn.png")``.

Each function draws on the given ``axes``, or in a new figure, and returns the figure. It does not show or save it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from rigl_core.inspect.history import History, Snapshot
from rigl_core.inspect.host import to_numpy
from rigl_core.inspect.neurons import EffectiveArchitecture, connections
from rigl_core.model.layers import Layer
from rigl_core.model.table import SparsityTable
from rigl_core.plan import Plan

ALL, ONE, FAINT = "#c2185b", "#0072b2", "#bdbdbd"
"""Colors: of the whole network, of a layer, and of dead neurons or lines in the background."""

LEGEND = 10
"""Up to this number of layers, each layer has its own color and its name in the legend; more layers are all faint."""


def densities(table: SparsityTable | Plan, axes: Axes | None = None) -> Figure:
    """The share of active weights: a bar for each layer, the first at the top, and a line for all layers together.

    Args:
        table: a plan, or the ``table`` of a training.
        axes: the axes to draw on; None draws in a new figure.
    """
    table = table.table if isinstance(table, Plan) else table
    axes = _axes(axes, height=_height(len(table.layers)))
    shares = [active / (layer.size or 1) for active, layer in zip(table.active, table.layers, strict=True)]
    axes.barh(range(len(shares)), shares, color=ONE)
    overall = table.total_active / (table.total_size or 1)
    axes.axvline(overall, color=ALL, linestyle="--", label=f"all layers: {overall:.4g}")
    axes.legend()
    _name_rows(axes, [layer.name for layer in table.layers])
    axes.set(title="Density of each layer", xlabel="active / all weights", xlim=(0, 1))
    return _figure(axes)


def neurons(architecture: EffectiveArchitecture, axes: Axes | None = None) -> Figure:
    """The numbers of neurons that are alive and dead: a bar for the inputs and for each layer's outputs."""
    axes = _axes(axes, height=_height(len(architecture.alive)))
    rows = range(len(architecture.alive))
    axes.barh(rows, architecture.widths, color=ONE, label="alive")
    axes.barh(rows, architecture.dead, left=architecture.widths, color=FAINT, label="dead")
    axes.legend()
    _name_rows(axes, ["inputs", *(layer.name for layer in architecture.layers)])
    axes.set(title="Neurons", xlabel="neurons")
    return _figure(axes)


def mask(mask: Any, layer: Layer | None = None, axes: Axes | None = None) -> Figure:
    """A layer's mask as an image, a row for each output and a column for each input.

    Args:
        mask: bool array.
        layer: the mask's layer, with known in and out axes. The image then shows the number of active connections of
            each kernel, and the blocks of groups. Without a layer, the mask needs two axes; the image shows its rows
            and columns.
        axes: the axes to draw on; None draws in a new figure.

    Raises:
        ValueError: if there is no layer and the mask does not have two axes, if the mask's shape is not the layer's, or
            if the layer's axes are unknown.
    """
    array = to_numpy(mask)
    if layer is None and array.ndim != 2:
        raise ValueError(f"mask has the shape {array.shape}: give the layer, which knows its in and out axes.")
    image = array.astype(np.uint8) if layer is None else connections(layer, array).T
    axes = _axes(axes)
    most = 1 if layer is None else int(np.prod([layer.shape[axis] for axis in layer.kernel_axes]))
    drawn = axes.imshow(image, cmap="Greys", vmin=0, vmax=max(most, 1), aspect="auto")
    if most > 1:
        figure = _figure(axes)
        figure.colorbar(drawn, ax=axes, label="active connections of a kernel")
    density = np.count_nonzero(array) / (array.size or 1)
    title = f"density {density:.4g}" if layer is None else f"{_plain(layer.name)}, density {density:.4g}"
    xlabel, ylabel = ("axis 1", "axis 0") if layer is None else ("input", "output")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return _figure(axes)


def churn(history: History, axes: Axes | None = None) -> Figure:
    """The share of the active connections that each update moved, in each layer and in all layers together."""
    snapshots = history.snapshots[1:]
    axes = _axes(axes)
    names = list(snapshots[0].layers_moved) if snapshots else []
    _draw_layers(axes, snapshots, {name: [100 * each.layers_moved[name] for each in snapshots] for name in names})
    axes.plot(_steps(snapshots), [100 * each.moved for each in snapshots], color=ALL, marker=".", label="all layers")
    axes.legend()
    axes.set(title="Moved by each update", xlabel="optimizer steps", ylabel="% of the active connections")
    axes.set_ylim(bottom=0)
    return _figure(axes)


def density(history: History, axes: Axes | None = None) -> Figure:
    """The density over time, of each layer and of all layers together; pruning and redistribution change it."""
    snapshots = history.snapshots
    axes = _axes(axes)
    names = list(snapshots[0].densities) if snapshots else []
    _draw_layers(axes, snapshots, {name: [each.densities[name] for each in snapshots] for name in names})
    axes.plot(_steps(snapshots), [each.density for each in snapshots], color=ALL, marker=".", label="all layers")
    axes.legend()
    axes.set(title="Density", xlabel="optimizer steps", ylabel="active / all weights")
    axes.set_ylim(bottom=0)
    return _figure(axes)


def r_s(history: History, axes: Axes | None = None) -> Figure:
    """R_s over time, the share of all connections that have been active so far, and the density."""
    snapshots = history.snapshots
    axes = _axes(axes)
    axes.plot(_steps(snapshots), [each.r_s for each in snapshots], color=ALL, marker=".", label="ever active, $R_s$")
    axes.plot(_steps(snapshots), [each.density for each in snapshots], color=ONE, linestyle="--", label="active now")
    axes.legend()
    axes.set(title="Explored so far", xlabel="optimizer steps", ylabel="share of all connections")
    axes.set_ylim(bottom=0)
    return _figure(axes)


def waste(history: History, axes: Axes | None = None) -> Figure:
    """Outputs without an active connection over time, in each layer and in all, and connections on no path.

    Args:
        history: one that knows the layers.
        axes: where to draw; None makes a figure.
    """
    snapshots = history.snapshots
    axes = _axes(axes)
    names = list(snapshots[0].units) if snapshots else []
    lines = {name: [100 * each.units[name].empty_share for each in snapshots] for name in names}
    _draw_layers(axes, snapshots, lines)
    axes.plot(
        _steps(snapshots), [100 * (each.empty or 0) for each in snapshots], color=ALL, marker=".", label="all layers"
    )
    if snapshots and snapshots[0].on_no_path is not None:
        paths = [100 * (each.on_no_path or 0) for each in snapshots]
        axes.plot(_steps(snapshots), paths, color=ONE, linestyle="--", label="connections on no path")
    axes.legend()
    axes.set(title="Without an active connection", xlabel="optimizer steps", ylabel="% of the outputs")
    axes.set_ylim(bottom=0)
    return _figure(axes)


def _draw_layers(axes: Axes, snapshots: Sequence[Snapshot], lines: dict[str, list[float]]) -> None:
    for i, (name, values) in enumerate(lines.items()):
        style: dict[str, Any] = {"color": f"C{i}", "label": _plain(name)} if len(lines) <= LEGEND else {"color": FAINT}
        axes.plot(_steps(snapshots), values, linewidth=1, **style)


def _steps(snapshots: Sequence[Snapshot]) -> list[int]:
    return [snapshot.step for snapshot in snapshots]


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), map(_plain, names))
    axes.invert_yaxis()


def _plain(name: str) -> str:
    """The name, changed so that matplotlib prints it as it is.

    Text between dollars would become a formula, and a line whose name starts with "_" would not be in the legend.
    """
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _height(rows: int) -> float:
    """The height of a figure in inches."""
    return 1.2 + 0.25 * max(rows, 4)


def _axes(axes: Axes | None, *, height: float = 4) -> Axes:
    return Figure(figsize=(7, height), layout="constrained").subplots() if axes is None else axes


def _figure(axes: Axes) -> Figure:
    figure = axes.figure
    return figure.figure if isinstance(figure, SubFigure) else figure
