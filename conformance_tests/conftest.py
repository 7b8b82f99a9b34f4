"""``--backend NAME`` (several allowed) chooses the harnesses, by default all. A missing one is an error."""

from __future__ import annotations

import pytest

HARNESSES = {  # in the order of import: PyTorch goes before TensorFlow
    "numpy": "conformance_tests.harnesses.numpy:NumPyHarness",
    "array_api": "conformance_tests.harnesses.array_api:ArrayAPIHarness",
    "torch": "conformance_tests.harnesses.torch:TorchHarness",
    "jax": "conformance_tests.harnesses.jax:JaxHarness",
    "tf": "conformance_tests.harnesses.tf:TensorFlowHarness",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", action="append", choices=list(HARNESSES), help="a backend to test; may be repeated")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for backend in config.getoption("--backend") or HARNESSES:
        config.option.harness.append(HARNESSES[backend])
