"""Versions of Python and of the frameworks, and the tests that run on them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nox
from packaging.requirements import Requirement
from packaging.version import Version

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
TESTS: Mapping[str, Sequence[str]] = {
    "array_api": ["conformance_tests/test_properties.py"],
    **{name: [f"tests/{name}", "conformance_tests/test_properties.py"] for name in ("numpy", "torch", "jax", "tf")},
}
OLDEST_TESTS: Mapping[
    str, Sequence[str]
] = {  # of JAX and TensorFlow in compiled modes only: there versions differ, and it takes half the time
    "numpy": [
        *(
            "-n",
            "2",
            "tests/numpy",
            "tests/core/test_plan.py",
            "tests/core/test_selection.py",
            "tests/core/test_sharing.py",
        ),
        *("conformance_tests/test_properties.py", "conformance_tests/test_budget.py"),
    ],
    "jax": ["tests/jax", "conformance_tests/test_properties.py", "-k", "not jax-eager"],
    "tf": ["tests/tf", "conformance_tests/test_properties.py", "-k", "not tf-eager and not tf-function"],
}
OLDEST_LACKS: Mapping[str, Sequence[str]] = {  # these optimizers
    "jax": [
        "tests/jax/test_inner.py::test_inner_optimizers[madgrad]",
        "tests/jax/test_inner.py::test_inner_optimizers[galore]",
        "tests/jax/test_zeros.py::test_state_that_needs_no_mask_stays_as_new[madgrad]",
        "tests/jax/test_zeros.py::test_state_that_needs_no_mask_stays_as_new[galore]",
    ],
    "tf": [  # Keras 3.10 has Muon, but it fails in any model on TensorFlow
        "tests/tf/test_errors.py::test_accumulation_in_one_of_several_optimizers",
        "tests/tf/test_inner.py::test_a_moving_average_is_sparse_to_the_end",
        "tests/tf/test_inner.py::test_zeros_outside_the_mask_and_survivors_bit_for_bit[muon]",
        "tests/tf/test_inner.py::test_zeros_outside_the_mask_and_survivors_bit_for_bit[multi]",
        "tests/tf/test_inner.py::test_zeros_outside_the_mask_and_survivors_bit_for_bit[schedule-free]",
    ],
}


def installed() -> list[str]:
    """The Pythons of this machine; to ask for another one is an error of nox."""
    return [version for version in PYTHONS if _runs(f"python{version}")]


def _runs(python: str) -> bool:
    """Whether a command is there and runs: that of pyenv can be there in vain."""
    return shutil.which(python) is not None and not subprocess.run([python, "-c", ""], capture_output=True).returncode


def lower_bounds(project: Mapping[str, Any], backend: str) -> list[str]:
    """What a backend's tests need, each package at the highest of its lower bounds in pyproject.toml."""
    bounds: dict[str, Version] = {}
    for requirement in map(Requirement, needed(project, backend)):
        (bound,) = requirement.specifier
        bounds[requirement.name] = max(Version(bound.version), bounds.get(requirement.name, Version("0")))
    return [f"{package}=={bound}" for package, bound in bounds.items()]


def needed(project: Mapping[str, Any], backend: str) -> list[str]:
    """The requirements of a backend's tests, as pyproject.toml declares them."""
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    required = [*project["project"]["dependencies"], *extras["testing"], *extras["sparse"]]
    if backend == "numpy":
        required += [*extras["examples"], *extras["report"], "pytest-xdist>=3.6"]
    elif backend == "array_api":
        required += groups["array_api"]
    elif backend == "tf":  # the same releases, without what a GPU needs
        required += [requirement.replace("tensorflow>", "tensorflow-cpu>") for requirement in extras["tensorflow"]]
    else:
        required += [*extras[backend], *groups.get(backend, ())]
    return required


def refuse_cuda(session: nox.Session, requirements: Sequence[str]) -> None:
    """Fail before an installation would bring the packages of CUDA, which are gigabytes."""
    report = Path(session.create_tmp()).resolve() / "report.json"
    session.run(*("python", "-m", "pip", "install", "-q", "--dry-run", "--report", str(report)), *requirements)
    names = [package["metadata"]["name"] for package in json.loads(report.read_text())["install"]]
    if cuda := [name for name in names if name.startswith(("nvidia", "cuda"))]:
        session.error(f"{', '.join(cuda)} would come: let PIP_EXTRA_INDEX_URL name an index of CPU wheels.")
