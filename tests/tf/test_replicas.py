"""Replicas have one topology, which moves by the gradients of all of them. TensorFlow asks for devices at its start."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.tf import replicas

Errors = dict[str, str]
"""What went wrong, by case."""


def start(kind: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", replicas.__name__, kind, str(folder)]
    options = {"env": os.environ | environment, "cwd": Path(__file__).parents[2]}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def errors_of(process: subprocess.Popen[str]) -> Errors:
    output, messages = process.communicate(timeout=600)
    assert process.returncode == 0, messages
    errors: Errors = json.loads(output.splitlines()[-1])
    return errors


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_two_devices(tmp_path: Path) -> None:
    assert errors_of(start("mirrored", tmp_path)) == {}


def test_two_processes(tmp_path: Path) -> None:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    configurations = [json.dumps({"cluster": cluster, "task": task}) for task in tasks]
    processes = [start("workers", tmp_path, TF_CONFIG=configuration) for configuration in configurations]
    try:
        assert [errors_of(process) for process in processes] == [{}, {}]
    finally:
        for process in processes:
            process.kill()
