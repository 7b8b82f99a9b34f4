"""Imports: the modules that they load and need, and the public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rigl_core

FRAMEWORKS = ("torch", "jax", "tensorflow", "keras", "optax", "hypothesis", "pytest", "rigl_backends")
REPORTERS = ("rich", "matplotlib")
NOT_LOADED = {*FRAMEWORKS, *REPORTERS}


def run(code: str, *, warnings: str = "error") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", warnings, "-c", code], capture_output=True, text=True, check=False)


def test_the_core_loads_no_framework() -> None:
    loaded = "{m.split('.')[0] for m in sys.modules}"
    code = f"import sys, rigl_core; rigl_core.RigL; print(sorted({loaded} & {NOT_LOADED}))"
    assert run(code).stdout.strip() == "[]"


def test_the_core_needs_numpy_alone() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] not in sys.stdlib_module_names | {'numpy', 'rigl_core', 'rigl_backends'}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import rigl_core, rigl_backends.numpy
print(rigl_core.make_plan(rigl_core.Static(0.9), rigl_core.specs.mlp(64, 300, 10)).active)
"""
    result = run(code)
    assert result.stdout.startswith("("), result.stderr


@pytest.mark.parametrize(
    ("backend", "framework", "extra"),
    [("torch", "torch", "torch"), ("jax", "jax", "jax"), ("tf", "tensorflow", "tensorflow")],
)
def test_a_missing_framework_is_named_with_its_extra(backend: str, framework: str, extra: str) -> None:
    code = f"import sys; sys.modules['{framework}'] = None; import rigl_backends.{backend}"
    error = run(code).stderr
    assert f"pip install 'rigl-core[{extra}]'" in error


@pytest.mark.parametrize("missing", REPORTERS)
def test_reports_name_their_extra(missing: str) -> None:
    error = run(f"import sys; sys.modules['{missing}'] = None; import rigl_core.report", warnings="ignore").stderr
    assert "ImportError: rigl_core.report needs rich and matplotlib: pip install 'rigl-core[report]'" in error


def test_reports_leave_pyplot_and_the_frameworks_alone() -> None:
    code = f"import sys, rigl_core.report; print(sorted(set(sys.modules) & set({(*FRAMEWORKS, 'matplotlib.pyplot')})))"
    assert run(code, warnings="ignore").stdout.strip() == "[]"  # ignore Matplotlib's own warnings


def test_public_names_are_imported_when_they_are_asked_for() -> None:
    code = "import sys, rigl_core; print('numpy' in sys.modules, rigl_core.specs.__name__, 'numpy' in sys.modules)"
    assert run(code).stdout.split() == ["False", "rigl_core.costs.specs", "True"]
    assert set(rigl_core.__all__) < set(dir(rigl_core))
    with pytest.raises(AttributeError, match="module 'rigl_core' has no attribute 'Rigl'"):
        rigl_core.Rigl  # noqa: B018


@pytest.mark.parametrize("part", ["parts.criteria", "step.selection", "costs.specs"])
def test_any_part_can_be_imported_first(part: str) -> None:
    assert run(f"import rigl_core.{part}; print(rigl_core.RigL.__name__)").stdout == "RigL\n"


def test_the_public_names_exist_and_are_sorted() -> None:
    assert all(hasattr(rigl_core, name) for name in rigl_core.__all__)
    assert len(set(rigl_core.__all__)) == len(rigl_core.__all__)


@pytest.mark.parametrize("package", ["rigl_core", "rigl_backends"])
def test_the_packages_are_typed(package: str) -> None:
    module = __import__(package)
    assert module.__file__ is not None
    assert (__import__("pathlib").Path(module.__file__).parent / "py.typed").exists()
