"""The code of the pages: what is whole prints what the page shows, and all of it names what there is."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", *sorted(ROOT.glob("examples/*/README.md"))]
PACKAGES = ("rigl_core", "rigl_backends")
ENVIRONMENT = {
    **os.environ,
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONIOENCODING": "utf-8",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def blocks(page: str | Path, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def lines(text: str) -> list[str]:
    """Lines without trailing blanks, which rich adds after a title, and without accuracies, which depend on the CPU."""
    return [re.sub(r"accuracy 0\.9\d", "accuracy 0.9", line.rstrip()) for line in text.splitlines()]


def output_of(code: str, folder: Path) -> str:
    """What a process prints that runs the code, and ends without an error."""
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, encoding="utf-8", check=False, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("page", ["costs.md", "how.md", "methods.md", "reports.md"])
def test_the_code_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    for recipe in blocks(page, "toml"):
        (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    printed = output_of("\n".join(blocks(page, "python")), tmp_path)
    assert lines(printed) == lines("".join(blocks(page, "text")))
    for picture in re.findall(r'savefig\("(.*?)"', "".join(blocks(page, "python"))):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("position", range(4), ids=["torch", "jax", "tf", "numpy"])
def test_a_first_training_in_each_framework(position: int, tmp_path: Path) -> None:
    code, shown = (blocks("start.md", language)[position] for language in ("python", "text"))
    assert lines(output_of(code, tmp_path)) == lines(shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_names_what_there_is(page: Path) -> None:
    """Each name of ours exists, and takes the parameters that the page gives it."""
    for code in blocks(page, "python"):
        tree = ast.parse(code)
        known = dict(_imports(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
                _found(node, known)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                _check_parameters(node, _found(node.func, known))


def _imports(tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """The names that a block knows: packages of ours, and what it imports from them."""
    yield from ((package, importlib.import_module(package)) for package in PACKAGES)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGES):
            module = importlib.import_module(node.module)
            for alias in node.names:
                yield alias.asname or alias.name, getattr(module, alias.name)


def _found(node: ast.expr, known: dict[str, Any]) -> Any:
    """The object of ours that an expression names; None if it names another one."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if not isinstance(node, ast.Attribute) or (owner := _found(node.value, known)) is None:
        return None
    if inspect.ismodule(owner) and not hasattr(owner, node.attr):
        return importlib.import_module(f"{owner.__name__}.{node.attr}")
    return getattr(owner, node.attr, None) if inspect.ismodule(owner) else None


def _check_parameters(call: ast.Call, function: Any) -> None:
    if function is None or not callable(function):
        return
    parameters = inspect.signature(function).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        given = {keyword.arg for keyword in call.keywords if keyword.arg}
        assert given <= {parameter.name for parameter in parameters}, ast.unparse(call)
