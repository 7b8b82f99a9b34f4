"""A pytest plugin that runs the properties on harnesses and prints a table of properties and backends.

    python -m pytest -p rigl_core.testing.plugin --pyargs rigl_core.testing.properties --harness my_module:MyHarness

A file may name the properties that a backend is known to fail, each with a reason. They must fail:

    python -m pytest ... --xfails xfails.toml      # "test_sparsifying_twice[mine-eager]" = "why, and until when"

``python -m rigl_core.testing`` does the same, and ignores the pytest settings of the projects around it.
"""

from __future__ import annotations

import importlib
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from rigl_core.testing.harness import Harness
from rigl_core.testing.limits import NotOffered
from rigl_core.testing.oracle import SMALLEST_NORMAL

pytest.register_assert_rewrite("rigl_core.testing.properties")

_OUTCOMES = pytest.StashKey[dict[str, dict[str, str]]]()
_HARNESSES = pytest.StashKey[list[Harness]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--harness``, ``--xfails`` and ``--times``."""
    parser.addoption(
        "--harness", action="append", default=[], metavar="MODULE:CLASS", help="a backend's harness; may be repeated"
    )
    parser.addoption("--xfails", type=Path, metavar="FILE", help="TOML file of expected failures and their reasons")
    parser.addoption("--times", type=int, default=1, metavar="N", help="N times as many examples of every property")


def pytest_configure(config: pytest.Config) -> None:
    """Load the harnesses. A harness that cannot be imported is an error, never a skip."""
    config.addinivalue_line("markers", "rule(*ids): the rules of docs/contract.md that a property checks")
    config.addinivalue_line("markers", "runs_where(chosen): the harnesses, modes and methods of a property")
    vars(importlib.import_module("rigl_core.testing.checks"))["TIMES"] = config.getoption("--times")
    outcomes: dict[str, dict[str, str]] = defaultdict(dict)
    config.stash[_OUTCOMES] = outcomes
    config.pluginmanager.register(_Collector(outcomes))
    config.stash[_HARNESSES] = [load_harness(spec) for spec in config.getoption("--harness")]


def load_harness(spec: str) -> Harness:
    """The harness that ``spec`` names.

    Args:
        spec: ``module:class``, or ``module:class:argument`` with an argument for the class, such as a device.

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
    """Refuse to run properties without a harness: pytest would skip them and report a success."""
    _expect_failures(config, items)
    wanting = any("harness" in getattr(item, "fixturenames", ()) for item in items)
    if wanting and not any(harness.modes for harness in config.stash[_HARNESSES]):
        raise pytest.UsageError("--harness is missing: say which backend to test, as --harness MODULE:CLASS.")
    _leave_out(config, items)


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases of `rigl_core.testing.checks.runs_where` in which it is not true."""

    def runs(item: pytest.Item) -> bool:
        mark = item.get_closest_marker("runs_where")
        if mark is None:
            return True
        params = item.callspec.params  # type: ignore[attr-defined]
        return bool(mark.args[0](params["harness"], params["mode"], params.get("method", "")))

    left_out = {item for item in items if not runs(item)}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _expect_failures(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that are known to fail. If one of them passes, it counts as a failure, so the file stays true."""
    file: Path | None = config.getoption("--xfails")
    reasons = {} if file is None else tomllib.loads(file.read_text())
    for item in items:
        if item.name in reasons:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reasons[item.name]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Write the outcome of a property into its report, for the table."""
    outcome = yield
    report = outcome.get_result()
    callspec = getattr(item, "callspec", None)
    if callspec is None or "harness" not in callspec.params:
        return
    if call.excinfo is not None and call.excinfo.errisinstance(NotOffered):
        report.outcome, report.wasxfail = "skipped", f"not offered: {call.excinfo.value}"
    if report.when == "call" or report.outcome != "passed":
        column = f"{callspec.params['harness'].name} {callspec.params['mode']}"
        word = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        reason = f" ({report.wasxfail})" if hasattr(report, "wasxfail") else ""
        report.conformance = [getattr(item, "originalname", item.name), column, word + reason]


class _Collector:
    """Collects the outcomes from the reports, also from those of pytest-xdist's workers."""

    def __init__(self, outcomes: dict[str, dict[str, str]]) -> None:
        self._outcomes = outcomes

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a report's outcome."""
        if hasattr(report, "conformance"):
            name, column, outcome = report.conformance
            if self._outcomes[name].get(column, "passed") == "passed":
                self._outcomes[name][column] = outcome  # for a property with several cases: the first that did not pass


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table: a row for each property, a column for each mode of a backend."""
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
