"""One adapter for Keras on its three backends. A process has one of them, so each has a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rigl_backends.keras
import rigl_backends.tf


def run(backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    options = {"env": os.environ | {"KERAS_BACKEND": backend}, "cwd": Path(__file__).parents[2]}
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_training_is_that_of_numpy(backend: str) -> None:
    result = run(backend, "-m", "tests.keras.training")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == {"backend": backend, "wrong": {}}


def test_on_tensorflow_it_is_the_adapter_for_tensorflow() -> None:
    for name in rigl_backends.keras.__all__:
        assert getattr(rigl_backends.keras, name) is getattr(rigl_backends.tf, name)


def test_a_backend_that_is_not_known() -> None:
    code = "import keras; keras.backend.backend = lambda: 'openvino'; import rigl_backends.keras"
    error = run("tensorflow", "-c", code).stderr
    assert "rigl_backends.keras needs Keras on JAX, PyTorch or TensorFlow, and Keras runs on 'openvino'" in error
