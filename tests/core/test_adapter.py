"""Adapters import only `rigl_core.adapter` and public names from the core."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import rigl_backends
import rigl_core
from rigl_core import adapter

BACKENDS = Path(rigl_backends.__path__[0])
FIFTH_LIBRARY = Path(__file__).parents[2] / "examples" / "fifth_library"
ADAPTERS = {
    str(path.relative_to(root)): path for root in (BACKENDS, FIFTH_LIBRARY) for path in sorted(root.rglob("*.py"))
}
PUBLIC = {"rigl_core.adapter", "rigl_core.serving"}
PUBLIC |= {f"rigl_core.adapter.{name}" for name in vars(adapter) if not name.startswith("_")}
PUBLIC |= {f"rigl_core.{name}" for name in rigl_core.__all__}
FOR_HARNESSES = {
    f"rigl_core.testing.{name}" for name in ("Array", "Harness", "Mask", "MicroBatches", "OptimizerSpec", "Setup")
}


def imported(path: Path) -> Iterator[str]:
    """The full names of all imports in a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_imports_what_is_public(name: str) -> None:
    of_the_core = {full for full in imported(ADAPTERS[name]) if full.split(".")[0] == "rigl_core"}
    assert of_the_core <= PUBLIC | (FOR_HARNESSES if name.endswith("_harness.py") else set())


def test_all_adapters_are_looked_at() -> None:
    assert {"rigl_mlx.py", "rigl_mlx_layer.py"} < set(ADAPTERS)
    for backend in ("numpy", "torch", "jax", "tf"):
        assert f"{backend}/training.py" in ADAPTERS


def test_what_is_not_public_is_seen(tmp_path: Path) -> None:
    text = "import rigl_core.step\ndef f():\n    from rigl_core.step.clock import Clock, NEVER\n"
    (tmp_path / "own.py").write_text(text, encoding="utf-8")
    found = list(imported(tmp_path / "own.py"))
    assert found == ["rigl_core.step", "rigl_core.step.clock.Clock", "rigl_core.step.clock.NEVER"]
    assert not PUBLIC & set(found)
