"""Every example is run by a test, and shown on the page of the tools."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tools.conftest import EXAMPLES

TESTS = sorted(path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__))
PAGE = EXAMPLES.parents[1] / "docs" / "tools.md"


def test_every_example_is_run_and_shown() -> None:
    examples = {path.stem for path in EXAMPLES.glob("*.py")} - {"images", "letters"}
    assert len(examples) == 10
    tests = "".join(path.read_text(encoding="utf-8") for path in TESTS)
    page = PAGE.read_text(encoding="utf-8")
    for name in examples:
        assert re.search(rf"^(import|from) {name}\b", tests, re.MULTILINE), name
        assert f"(../examples/tools/{name}.py)" in page, name
