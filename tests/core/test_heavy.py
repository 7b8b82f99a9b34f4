"""The list of heavy tests names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_heavy_tests_are_there() -> None:
    lines = (ROOT / "tests" / "heavy.txt").read_text(encoding="utf-8").splitlines()
    named = [line for line in lines if not line.startswith("#")]
    assert named == sorted(set(named))
    for line in named:
        file, _, test = line.partition("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        name = test.partition("\\[")[0]
        assert re.compile(line)
        elsewhere = "import *" in source or not name.isidentifier()
        assert elsewhere or re.search(rf"^def {name}\b", source, re.MULTILINE), line
