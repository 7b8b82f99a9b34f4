"""``--backend NAME`` (several allowed) chooses the harnesses; the default is all. A missing one is an error.

``--device cuda`` runs PyTorch and JAX on a GPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HARNESSES = {  # in the order of import: PyTorch goes before TensorFlow
    "numpy": "conformance_tests.harnesses.numpy:NumPyHarness",
    "array_api": "conformance_tests.harnesses.array_api:ArrayAPIHarness",
    "torch": "conformance_tests.harnesses.torch:TorchHarness",
    "jax": "conformance_tests.harnesses.jax:JaxHarness",
    "tf": "conformance_tests.harnesses.tf:TensorFlowHarness",
}

WITH_DEVICES = ("torch", "jax")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", action="append", choices=list(HARNESSES), help="a backend to test; may be repeated")
    parser.addoption("--device", help="where the arrays are, such as cuda; only for torch and jax")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.xfails = config.option.xfails or Path(__file__).parent / "xfails.toml"
    device = config.getoption("--device")
    for backend in config.getoption("--backend") or HARNESSES:
        if device and backend not in WITH_DEVICES:
            raise pytest.UsageError(f"--device {device}: {backend} has none; add --backend torch or --backend jax.")
        config.option.harness.append(f"{HARNESSES[backend]}:{device}" if device else HARNESSES[backend])
