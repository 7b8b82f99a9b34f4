"""The pages of docs: their code prints the output that they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def stripped(text: str) -> list[str]:
    """The lines, without trailing blanks: rich adds some after a title."""
    return [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("page", ["reports.md", "methods.md"])
def test_the_code_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    for recipe in blocks(page, "toml"):
        (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks(page, "python"))],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert stripped(result.stdout) == stripped("".join(blocks(page, "text")))
    for picture in re.findall(r'savefig\("(.*?)"', "".join(blocks(page, "python"))):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
