"""A process that is killed between two checkpoints, and started again, ends with the bits of one that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rigl_core.testing.checks import checks

SCRIPT = Path(__file__).with_name("killed.py")


def train(framework: str, folder: Path, *killed_at: int) -> int:
    """The exit status of a process that trains."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), framework, str(folder), *map(str, killed_at)]
    return subprocess.run(command, check=False, timeout=240).returncode


@checks("P2")
@pytest.mark.parametrize(
    "framework", ["torch", pytest.param("jax", marks=pytest.mark.heavy), pytest.param("keras", marks=pytest.mark.heavy)]
)
def test_a_killed_training_goes_on(framework: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(framework, whole) == 0
    assert train(framework, killed, 18) == -signal.SIGKILL  # the last checkpoint is that of step 14
    assert not (killed / "end.npz").exists()
    assert train(framework, killed) == 0
    with np.load(whole / "end.npz") as expected, np.load(killed / "end.npz") as found:
        assert len(expected) == len(found) > 4
        for name in expected:
            assert expected[name].tobytes() == found[name].tobytes(), name
