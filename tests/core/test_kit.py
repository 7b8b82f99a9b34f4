"""The kit for authors of other adapters: its public names, and its command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rigl_core.testing
from rigl_core.testing import paste
from rigl_core.testing.method_trainings import MOVING, method_trainings
from rigl_core.testing.strategies import trainings, updates

ROOT = Path(__file__).parents[2]
NUMPY = "conformance_tests.harnesses.numpy:NumPyHarness"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_public_names_exist() -> None:
    assert all(hasattr(rigl_core.testing, name) for name in rigl_core.testing.__all__)
    assert len(set(rigl_core.testing.__all__)) == len(rigl_core.testing.__all__)


@pytest.mark.parametrize("missing", ["hypothesis", "pytest"])
def test_a_missing_requirement_is_named_with_its_extra(missing: str) -> None:
    code = f"import sys; sys.modules['{missing}'] = None; import rigl_core.testing"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'rigl-core[testing]'" in result.stderr


def test_one_command_runs_the_properties_and_prints_the_table() -> None:
    result = run("rigl_core.testing", "-W", "error", "--harness", NUMPY, "-k", "test_initial_topology or does_not_fit")
    assert result.returncode == 0, result.stdout + result.stderr
    table = [line.split() for line in result.stdout.split(" conformance ")[1].splitlines()]
    assert ["numpy", "active", "numpy", "eager"] in table
    assert ["test_initial_topology", "passed", "passed"] in table
    assert ["test_a_recipe_that_does_not_fit_the_model", "passed", "passed"] in table
    assert "numpy does not have bfloat16: those cases were left out." in result.stdout


def test_the_table_shows_a_failure_among_passing_cases(tmp_path: Path) -> None:
    properties = """
import pytest

@pytest.mark.parametrize("good", [True, False, True])
def test_sometimes(harness, mode, good):
    assert good
"""
    (tmp_path / "test_own.py").write_text(properties)
    own = str(tmp_path / "test_own.py")
    result = run("pytest", "-p", "rigl_core.testing.plugin", "--rootdir", str(tmp_path), own, "--harness", NUMPY)
    assert "test_sometimes failed" in result.stdout


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ("1", ["eager-a", "eager-b", "eager-c", "fast-a", "fast-c", "small-b"]),
        ("2", [f"{mode}-{method}" for mode in ("eager", "fast", "small") for method in "abc"]),
    ],
)
def test_methods_take_turns_in_compiled_modes(tmp_path: Path, times: str, expected: list[str]) -> None:
    properties = f"""
import pytest
from {NUMPY.split(":")[0]} import NumPyHarness
from rigl_core.testing.checks import in_turn, runs_where

class Modes(NumPyHarness):
    modes = ("eager", "fast", "small")

@runs_where(in_turn("abc"))
@pytest.mark.parametrize("method", ["a", "b", "c"])
def test_own(harness, mode, method):
    print("ran", mode + "-" + method)
"""
    (tmp_path / "test_own.py").write_text(properties)
    path = (*sys.path, str(ROOT), str(tmp_path))
    command = [sys.executable, "-m", "pytest", "-s", "-p", "rigl_core.testing.plugin", "--rootdir", str(tmp_path)]
    command += [str(tmp_path / "test_own.py"), "--harness", "test_own:Modes", "--times", times]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert sorted(re.findall(r"ran (\S+)", result.stdout)) == expected, result.stdout


@pytest.mark.parametrize(("assertion", "outcome"), [("False", "xfailed (known since today)"), ("True", "failed")])
def test_expected_failures_have_a_reason_and_must_fail(tmp_path: Path, assertion: str, outcome: str) -> None:
    (tmp_path / "test_own.py").write_text(f"def test_known(harness, mode):\n    assert {assertion}\n")
    known = "".join(f'"test_known[numpy-{mode}]" = "known since today"\n' for mode in ("eager", "active"))
    (tmp_path / "xfails.toml").write_text(known)
    options = ("--harness", NUMPY, "--rootdir", str(tmp_path), "--xfails", str(tmp_path / "xfails.toml"))
    result = run("pytest", "-p", "rigl_core.testing.plugin", str(tmp_path / "test_own.py"), *options)
    assert f"test_known {outcome}" in result.stdout
    assert (result.returncode == 0) == (assertion == "False")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--harness is missing"),
        (("--harness", "nowhere:Harness"), "--harness nowhere:Harness: cannot be loaded"),
        (("--harness", "rigl_core.testing:Harness"), "cannot be loaded (Can't instantiate abstract class Harness"),
    ],
)
def test_properties_never_run_on_nothing(arguments: tuple[str, ...], message: str) -> None:
    result = run("rigl_core.testing", *arguments)
    assert result.returncode == 4, result.stdout
    assert message in result.stderr


@settings(max_examples=30, deadline=None)
@given(st.one_of(method_trainings(tuple(MOVING), silence="zero"), trainings(), updates(["float16"], special=True)))
def test_a_printed_case_can_be_pasted(case: Any) -> None:
    pasted = eval(repr(case), vars(paste))
    for name, value in vars(case).items():
        if name == "recipe":
            assert pasted.recipe.to_dict() == value.to_dict()
        elif isinstance(value, dict | np.ndarray):
            np.testing.assert_equal(getattr(pasted, name), value)
        else:
            assert getattr(pasted, name) == value
    assert type(pasted) is type(case)
