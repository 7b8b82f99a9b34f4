"""How all tests run: Hypothesis times no example, and the garbage collector looks at new objects only."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest
from hypothesis import settings

_OFTEN = 50
_HEAVY = Path(__file__).parent / "tests" / "heavy.txt"


def pytest_configure(config: pytest.Config) -> None:
    """``--times N`` makes N times as many examples of plain Hypothesis tests, too."""
    examples = settings.default.max_examples * config.getoption("--times")
    settings.register_profile("untimed", deadline=None, max_examples=examples)
    settings.load_profile("untimed")
    config.pluginmanager.register(_Collections())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Heavy tests, which are marked or in tests/heavy.txt, run with ``--times 2`` or more: in ``nox -s thorough``."""
    if config.getoption("--times") > 1:
        return
    lines = _HEAVY.read_text("utf-8").splitlines()
    listed = re.compile("|".join(line for line in lines if not line.startswith("#")))
    heavy = [item for item in items if listed.match(item.nodeid) or item.get_closest_marker("heavy")]
    config.hook.pytest_deselected(items=heavy)
    items[:] = [item for item in items if item not in set(heavy)]


class _Collections:
    """Frameworks keep what they compile. In a long session a search through all of it took up to 40 seconds.

    So what lives on after some tests is taken out of the collector's sight. What is garbage by then is freed first.
    """

    def __init__(self) -> None:
        self._tests = 0

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self) -> None:
        """After a number of tests: free the garbage, and look no more at what is left."""
        self._tests += 1
        if self._tests % _OFTEN == 0:
            gc.collect()
            gc.freeze()
