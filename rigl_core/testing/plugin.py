"""A pytest plugin that runs the properties on harnesses and prints properties x backends.

    python -m pytest -p rigl_core.testing.plugin --pyargs rigl_core.testing.properties --harness my_module:MyHarness

What a backend is known to fail is named in one file, with the reason, and must fail:

    python -m pytest ... --xfails xfails.toml      # "test_sparsifying_twice[mine-eager]" = "why, and until when"

``python -m rigl_core.testing`` is short for it, and keeps away from the settings of any project around.
"""

from __future__ import annotations

import importlib
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from rigl_core.testing.harness import Harness
from rigl_core.testing.oracle import SMALLEST_NORMAL

pytest.register_assert_rewrite("rigl_core.testing.properties")

_OUTCOMES = pytest.StashKey[dict[str, dict[str, str]]]()
_HARNESSES = pytest.StashKey[list[Harness]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--harness``."""
    parser.addoption(
        "--harness", action="append", default=[], metavar="MODULE:CLASS", help="a backend's harness; may be repeated"
    )
    parser.addoption("--xfails", type=Path, metavar="FILE", help="TOML file of expected failures and their reasons")


def pytest_configure(config: pytest.Config) -> None:
    """Load the harnesses: one that cannot be imported is an error, never a skip."""
    config.addinivalue_line("markers", "rule(*ids): the rules of docs/contract.md that a property checks")
    outcomes: dict[str, dict[str, str]] = defaultdict(dict)
    config.stash[_OUTCOMES] = outcomes
    config.pluginmanager.register(_Collector(outcomes))
    config.stash[_HARNESSES] = [load_harness(spec) for spec in config.getoption("--harness")]


def load_harness(spec: str) -> Harness:
    """The harness that ``module:class`` names; what follows another colon is given to the class (a device, say).

    Raises:
        pytest.UsageError: if it cannot be loaded.
    """
    module, _, rest = spec.partition(":")
    name, *arguments = rest.split(":")
    try:
        harness: Harness = getattr(importlib.import_module(module), name)(*arguments)
    except (ImportError, AttributeError, TypeError) as error:
        raise pytest.UsageError(
            f"--harness {spec}: cannot be loaded ({error}). Install it, or run where it is."
        ) from error
    return harness


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a property on every harness in each of its modes."""
    if {"harness", "mode"} <= set(metafunc.fixturenames):
        harnesses = metafunc.config.stash[_HARNESSES]
        cases = [
            pytest.param(harness, mode, id=f"{harness.name}-{mode}") for harness in harnesses for mode in harness.modes
        ]
        metafunc.parametrize(("harness", "mode"), cases)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run properties on nothing: pytest would skip them and call it a success."""
    _expect_failures(config, items)
    wanting = any("harness" in getattr(item, "fixturenames", ()) for item in items)
    if wanting and not any(harness.modes for harness in config.stash[_HARNESSES]):
        raise pytest.UsageError("--harness is missing: say which backend to test, as --harness MODULE:CLASS.")


def _expect_failures(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is known to fail; what passes in spite of it is a failure, so that the file cannot go stale."""
    file: Path | None = config.getoption("--xfails")
    reasons = {} if file is None else tomllib.loads(file.read_text())
    for item in items:
        if item.name in reasons:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reasons[item.name]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Note the outcome for the table."""
    outcome = yield
    report = outcome.get_result()
    callspec = getattr(item, "callspec", None)
    if callspec is None or "harness" not in callspec.params:
        return
    if report.when == "call" or report.outcome != "passed":
        column = f"{callspec.params['harness'].name} {callspec.params['mode']}"
        word = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        reason = f" ({report.wasxfail})" if hasattr(report, "wasxfail") else ""
        report.conformance = [getattr(item, "originalname", item.name), column, word + reason]


class _Collector:
    """Gathers what the reports say, also those of pytest-xdist's workers."""

    def __init__(self, outcomes: dict[str, dict[str, str]]) -> None:
        self._outcomes = outcomes

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One report has come in."""
        if hasattr(report, "conformance"):
            name, column, outcome = report.conformance
            if self._outcomes[name].get(column, "passed") == "passed":
                self._outcomes[name][column] = outcome  # of a property's several cases, the first that did not pass


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table: a property a row, a backend's mode a column."""
    outcomes = config.stash[_OUTCOMES]
    if not outcomes:
        return
    columns = sorted({column for row in outcomes.values() for column in row})
    width = max(map(len, outcomes))
    terminalreporter.section("conformance")
    terminalreporter.line(" ".join([" " * width, *(column for column in columns)]))
    for name, row in outcomes.items():
        cells = [row.get(column, "-").ljust(len(column)) for column in columns]
        terminalreporter.line(" ".join([name.ljust(width), *cells]))
    for harness in config.stash[_HARNESSES]:
        lacking = [dtype for dtype in SMALLEST_NORMAL if dtype not in harness.dtypes]
        lacking += [] if harness.unused_layers else ["layers without a gradient"]
        if lacking:
            terminalreporter.line(f"{harness.name} does not have {', '.join(lacking)}: those cases were left out.")
