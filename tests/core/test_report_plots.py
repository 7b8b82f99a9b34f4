"""The plots: the values read back from matplotlib are the given ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from rigl_core import History, Layer, SparsityTable, Static, effective_architecture, make_plan, specs
from rigl_core.report import plots
from rigl_core.testing.checks import checks

PLAN = make_plan(Static(0.9), specs.mlp(784, 300, 100, 10))
NAMES = ["fc1.weight", "fc2.weight", "fc3.weight"]


def axes_of(figure: Figure) -> Axes:
    """The first axes of a figure, after it is drawn: matplotlib gives its warnings then."""
    figure.savefig(io.BytesIO(), format="png")
    return figure.axes[0]


def bars(axes: Axes) -> list[list[tuple[float, float]]]:
    """The start and the length of each bar, for each kind of bars."""
    kinds = [kind for kind in axes.containers if isinstance(kind, BarContainer)]
    return [[(bar.get_x(), bar.get_width()) for bar in kind] for kind in kinds]


def names_of(axes: Axes) -> list[str]:
    """The names of the rows, from top to bottom."""
    low, high = axes.get_ylim()
    assert low > high
    return [label.get_text() for label in axes.get_yticklabels()]


def lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def history(layers: int = 2, snapshots: int = 4, seed: int = 0) -> History:
    rng = np.random.default_rng(seed)
    history = History()
    for step in range(snapshots):
        history.add(100 * step, {f"layer{i}": rng.random((4, 5)) < 0.3 for i in range(layers)})
    return history


def test_densities() -> None:
    axes = axes_of(plots.densities(PLAN))
    assert bars(axes) == [[(0, active / layer.size) for active, layer in zip(PLAN.active, PLAN.layers, strict=True)]]
    assert names_of(axes) == NAMES
    assert lines(axes) == {"all layers: 0.1": ([0.1, 0.1], [0, 1])}
    assert bars(axes_of(plots.densities(PLAN.table))) == bars(axes)


def test_neurons() -> None:
    masks = {"fc1.weight": np.array([[1, 1], [0, 0]], bool), "fc2.weight": np.array([[1, 0]], bool)}
    left = effective_architecture(specs.mlp(2, 2, 1), masks)
    axes = axes_of(plots.neurons(left))
    assert bars(axes) == [[(0, 2), (0, 1), (0, 1)], [(2, 0), (1, 1), (1, 0)]]
    assert names_of(axes) == ["inputs", "fc1.weight", "fc2.weight"]
    assert legend(axes) == ["alive", "dead"]


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_lines_over_time(layers: int, snapshots: int, seed: int) -> None:
    given = history(layers, snapshots, seed)
    steps = [100 * i for i in range(snapshots)]
    churn, density, r_s = (plot(given).axes[0] for plot in (plots.churn, plots.density, plots.r_s))
    moved = [100 * each.moved for each in given.snapshots[1:]]
    assert lines(churn)["all layers"] == (steps[1:], moved)
    assert lines(density)["all layers"] == (steps, [each.density for each in given.snapshots])
    assert lines(r_s)["ever active, $R_s$"] == (steps, [each.r_s for each in given.snapshots])
    assert lines(r_s)["active now"] == lines(density)["all layers"]
    named = [f"layer{i}" for i in range(layers if layers <= plots.LEGEND else 0)]
    assert legend(density) == [*named, "all layers"]
    for name in named:
        assert lines(density)[name] == (steps, [each.densities[name] for each in given.snapshots])
        if snapshots > 1:
            assert lines(churn)[name][1] == [100 * each.layers_moved[name] for each in given.snapshots[1:]]
    assert len(density.lines) == layers + 1


def test_a_history_without_snapshots_is_an_empty_plot() -> None:
    for plot in (plots.churn, plots.density, plots.r_s):
        assert all(xs == ys == [] for xs, ys in lines(axes_of(plot(History()))).values())


def image(axes: Axes) -> np.ndarray[Any, Any]:
    (drawn,) = axes.images
    assert drawn.get_cmap().name == "Greys"
    return np.asarray(drawn.get_array())


def test_a_mask() -> None:
    mask = np.random.default_rng(0).random((4, 7)) < 0.5
    axes = axes_of(plots.mask(mask))
    np.testing.assert_array_equal(image(axes), mask)
    assert axes.images[0].get_clim() == (0, 1)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("axis 1", "axis 0")
    assert axes.get_title() == f"density {mask.mean():.4g}"
    stored_in_out = Layer("fc", (4, 7), in_axes=(0,), out_axes=(1,))
    axes = axes_of(plots.mask(mask, stored_in_out))
    np.testing.assert_array_equal(image(axes), mask.T)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("input", "output")


def test_the_mask_of_a_convolution_shows_kernels_and_groups() -> None:
    mask = np.random.default_rng(0).random((4, 2, 3, 3)) < 0.5
    figure = plots.mask(mask, Layer("conv", mask.shape, in_axes=(1,), out_axes=(0,), groups=2))
    expected = np.zeros((4, 4), int)
    expected[:2, :2], expected[2:, 2:] = mask[:2].sum((2, 3)), mask[2:].sum((2, 3))
    np.testing.assert_array_equal(image(axes_of(figure)), expected)
    assert figure.axes[0].images[0].get_clim() == (0, 9)
    assert figure.axes[1].get_ylabel() == "active connections of a kernel"


@checks("P3")
def test_a_mask_that_cannot_be_laid_out_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask has the shape \(2, 1, 3, 3\): give the layer"):
        plots.mask(np.ones((2, 1, 3, 3), bool))
    with pytest.raises(ValueError, match=r"masks has the shape \(2,\) for layer 'fc'"):
        plots.mask(np.ones(2, bool), Layer("fc", (2, 2), (1,), (0,)))


PLOTS: list[Callable[[Axes | None], Figure]] = [
    lambda axes: plots.densities(PLAN, axes),
    lambda axes: plots.neurons(effective_architecture(PLAN.layers, {}), axes),
    lambda axes: plots.mask(np.ones((3, 2, 2), bool), Layer("c", (3, 2, 2), (1,), (0,)), axes),
    lambda axes: plots.churn(history(), axes),
    lambda axes: plots.density(history(), axes),
    lambda axes: plots.r_s(history(), axes),
]


@pytest.mark.parametrize("plot", PLOTS)
def test_on_axes_of_the_user(plot: Callable[[Axes | None], Figure]) -> None:
    figure = Figure(figsize=(3, 2))
    left, right = figure.subplots(1, 2)
    assert plot(right) is figure
    assert right.has_data()
    assert not left.has_data()
    inner = figure.subfigures(1, 1).subplots()
    assert plot(inner) is figure


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_global_changes(plot: Callable[[Axes | None], Figure]) -> None:
    before = dict(matplotlib.rcParams)
    axes_of(plot(None))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["a$b$", "_hidden.weight", "$\\broken", "params['fc1']['kernel']"])
def test_names_are_drawn_as_they_are(name: str) -> None:
    layer = Layer(name, (2, 2), (1,), (0,))
    own = History()
    own.add(0, {name: np.eye(2, dtype=bool)})
    own.add(1, {name: ~np.eye(2, dtype=bool)})
    drawn = [
        names_of(axes_of(plots.densities(SparsityTable((layer,), (3,)))))[0],
        legend(axes_of(plots.churn(own)))[0],
        axes_of(plots.mask(own.masks[name], layer)).get_title().removesuffix(", density 0.5"),
    ]
    assert [text.replace(r"\$", "$").strip() for text in drawn] == [name] * 3
