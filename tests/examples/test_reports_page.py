"""docs/reports.md: its code prints what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reports.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def stripped(text: str) -> list[str]:
    """Lines, without the blanks to which rich fills up a title."""
    return [line.rstrip() for line in text.splitlines()]


def test_the_code_prints_what_the_page_says(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks("python"))],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert stripped(result.stdout) == stripped("".join(blocks("text")))
    assert (tmp_path / "reports.png").read_bytes().startswith(b"\x89PNG")
