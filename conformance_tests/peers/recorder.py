"""A pytest plugin that writes what became of each property: ``-p conformance_tests.peers.recorder --record FILE``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance_tests.peers.cases import first_line, kind_and_line
from rigl_core.testing import NotOffered

_FOUND = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, metavar="FILE", help="where to write the outcomes, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FOUND] = []


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "call":
        rules = [rule for mark in item.iter_markers("rule") for rule in mark.args]
        outcome, text = _outcome(call.excinfo.value if call.excinfo else None)
        name = getattr(item, "originalname", item.name)
        chosen = [str(value) for key, value in item.callspec.params.items() if key not in ("harness", "mode")]
        case = " ".join(chosen) or name.removeprefix("test_")
        found = {"property": name, "case": case, "rules": rules, "outcome": outcome, "text": text}
        item.config.stash[_FOUND].append(found)


def _outcome(error: BaseException | None) -> tuple[str, str]:
    if error is None:
        return "kept", ""
    if isinstance(error, NotOffered):
        return "not offered", first_line(error)
    if isinstance(error, AssertionError):
        return "broken", first_line(error)
    return "died", kind_and_line(error)


def pytest_sessionfinish(session: pytest.Session) -> None:
    file: Path | None = session.config.getoption("--record")
    if file is not None:
        file.write_text(json.dumps(session.config.stash[_FOUND], indent=1))
