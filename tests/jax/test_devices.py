"""A training on two devices has the topology of a training on one. A process must ask for devices before JAX starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("on_two_devices.py")


HEAVY = [pytest.param(way, marks=pytest.mark.heavy) for way in ("model", "ensemble")]


@pytest.mark.parametrize("way", ["data", "shard_map", "pmap", *HEAVY])
def test_as_on_one_device(way: str) -> None:
    command = [sys.executable, "-W", "error", str(SCRIPT), way]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "the same masks\n"), result.stderr
