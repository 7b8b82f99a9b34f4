"""How Hypothesis runs in all tests: no example is timed, since machines are slow now and then."""

from __future__ import annotations

import pytest
from hypothesis import settings


def pytest_configure(config: pytest.Config) -> None:
    """``--times N`` makes N times as many examples of plain Hypothesis tests, too."""
    examples = settings.default.max_examples * config.getoption("--times")
    settings.register_profile("untimed", deadline=None, max_examples=examples)
    settings.load_profile("untimed")
