"""Layers that are sharded over eight devices. A process must ask for devices before JAX starts."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rigl_core.testing.checks import checks

SCRIPT = Path(__file__).with_name("on_eight_devices.py")
SHARED = SCRIPT.with_name("on_two_processes.py")


HEAVY = pytest.param("redistribution", marks=pytest.mark.heavy)
EXPLICIT = pytest.param("explicit", marks=pytest.mark.heavy)


@checks("D1", "D2", "D3")
@pytest.mark.parametrize("way", ["layouts", "memory", "copies", HEAVY, EXPLICIT])
def test_as_on_one_device(way: str) -> None:
    command = [sys.executable, "-W", "error", str(SCRIPT), way]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "as on one device\n"), result.stderr


@checks("D1")
def test_as_in_one_process() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    commands = [[sys.executable, "-W", "error", str(SHARED), address, process] for process in "01"]
    with (
        subprocess.Popen(commands[0], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first,
        subprocess.Popen(commands[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as second,
    ):
        told = [process.communicate()[0] for process in (first, second)]
    for process, text in zip((first, second), told, strict=True):
        assert process.returncode == 0, text
        assert text.splitlines()[-1] == "as one process"
