"""The example that trains a network whose dense weights do not fit into the memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "beyond_memory"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(EXAMPLE), *options], capture_output=True, text=True, check=False)


def test_only_active_weights_fit(tmp_path: Path) -> None:
    """In two gigabytes of address space a dense training of this width fails, and so does one with masks."""
    small = ["--steps", "1", "--wide", "11000", "--width", "512", "--density", "0.01"]
    done = run(*small, "--quiet", "--picture", str(tmp_path / "picture.png"))
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    limited = {row[1]: row[3] for row in rows if row[2] == "2,048"}
    assert limited["dense"] == limited["masks, 1 %"] == "does not fit"
    assert limited["active, 1 %"].endswith("%")
    free = {row[1]: row for row in rows if row[2] == "none"}
    assert all(row[3].endswith("%") and int(row[6]) > 0 for row in free.values())
    assert set(free) == {"dense", "masks, 1 %", "active, 1 %"}
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--density", "1"], "'1' is no number above 0 and below 1"),
        (["--picture", "picture.exe"], "must end in"),
        (["--data", "nowhere"], "--data nowhere is neither digits nor fashion-mnist"),
    ],
)
def test_wrong_options(options: list[str], said: str) -> None:
    done = run(*options)
    assert done.returncode != 0
    assert said in done.stderr
