"""The example that prints the paper's costs: every figure, to all digits that the example shows."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rigl_core

EXAMPLE = Path(__file__).parents[2] / "examples" / "paper_costs"

EXPECTED = {
    ("ERK, S = 0.8", "inference"): "0.4153 (.42)",
    ("ERK, S = 0.8", "RigL"): "0.4172 (.42)",
    ("ERK, S = 0.8", "RigL 5x"): "2.086 (2.09)",
    ("ERK, S = 0.8", "SNFS"): "0.6102 (.61)",
    ("ERK, S = 0.9", "inference"): "0.2431 (.24)",
    ("ERK, S = 0.9", "RigL"): "0.2456 (.25)",
    ("ERK, S = 0.9", "RigL 5x"): "1.228 (1.23)",
    ("ERK, S = 0.9", "SNFS"): "0.4954 (.50)",
    ("uniform, S = 0.8", "inference"): "0.2254 (.23)",
    ("uniform, S = 0.8", "RigL"): "0.2279 (.23)",
    ("uniform, S = 0.8", "RigL 5x"): "1.140 (1.14)",
    ("uniform, S = 0.9", "inference"): "0.1285",
    ("uniform, S = 0.9", "RigL"): "0.1314",
    ("uniform, S = 0.9", "RigL 5x"): "0.657",
    ("uniform, conv1 sparse, S = 0.9", "inference"): "0.1012 (.10)",
    ("pruning, S = 0.8", "training"): "0.5603 (.56)",
    ("pruning, S = 0.9", "training"): "0.5053 (.51)",
    ("small-dense for S = 0.8", "training"): "0.2218 (.20)",
    ("small-dense for S = 0.9", "training"): "0.1209 (.12)",
    ("DSR, S = 0.8", "training"): "- (.40)",
    ("DSR, S = 0.9", "training"): "- (.30)",
    ("dense", "megabytes"): "102.122 (102.122)",
    ("ERK, S = 0.9", "megabytes"): "13.499 (13.499)",
    ("uniform, S = 0.9", "megabytes"): "13.532 (13.532)",
}


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE), run_name="paper_costs")


@pytest.fixture(scope="module")
def figures(example: dict[str, Any]) -> dict[tuple[str, str], Any]:
    parts = ("constant_sparsity", "gradual_pruning", "smaller_networks", "sizes")
    return {(figure.row, figure.column): figure for part in parts for figure in example[part]()}


@pytest.mark.parametrize("place", EXPECTED, ids=" / ".join)
def test_every_figure(place: tuple[str, str], figures: dict[tuple[str, str], Any]) -> None:
    assert str(figures[place]) == EXPECTED[place]


def test_what_is_printed_is_ours_rounded(figures: dict[tuple[str, str], Any]) -> None:
    """The paper's numbers are ours, rounded to two decimals, except for one that we cannot explain."""
    relative = {
        place: figure for place, figure in figures.items() if figure.paper and place[1] != "megabytes" and figure.ours
    }
    differing = [place for place, figure in relative.items() if f"{figure.ours:.2f}".lstrip("0") != figure.paper]
    assert len(relative) == 16
    assert differing == [("small-dense for S = 0.8", "training")]


def test_the_dense_network(example: dict[str, Any]) -> None:
    assert f"{example['dense_flops']():.4e}" == "8.2023e+09"


def test_our_own_convention_is_as_the_readme_says() -> None:
    network = rigl_core.specs.resnet50()
    costs = rigl_core.cost_table(rigl_core.make_plan(rigl_core.Static(0.8), network), network)
    assert (costs.f_d, f"{costs.inference:.4f}") == (2 * 4_089_184_256, "0.4138")


def test_pruning_by_the_time_that_each_sparsity_lasts(example: dict[str, Any]) -> None:
    exact = [example["pruning_cost"](sparsity, example["PRUNING"][:-1]) for sparsity in (0.8, 0.9)]
    assert [f"{cost:.4f}" for cost in exact] == ["0.5707", "0.5171"]


def test_the_script_prints_the_table_with_numpy_alone() -> None:
    code = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] not in sys.stdlib_module_names | {'numpy', 'rigl_core', '__main__'}:
            raise ImportError(f'{name} is neither NumPy nor of the standard library')
sys.meta_path.insert(0, Refuse())
runpy.run_path(sys.argv[1], run_name='__main__')
"""
    command = [sys.executable, "-W", "error", "-c", code, str(EXAMPLE)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for text in ("8.2023e+09", "0.4153 (.42)", "0.2456 (.25)", "1.140 (1.14)", "0.1012 (.10)", "0.5603 (.56)"):
        assert text in result.stdout
