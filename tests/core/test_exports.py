"""A module with ``__all__`` lists all public names that it defines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rigl_core

CORE = Path(rigl_core.__path__[0])
TREES = {path.relative_to(CORE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in CORE.rglob("*.py")}


def assigned(tree: ast.Module) -> dict[str, ast.expr | None]:
    """The values that the top level of a module assigns to names."""
    found: dict[str, ast.expr | None] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            found |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node.value
    return found


def defined(tree: ast.Module) -> set[str]:
    """The public functions, classes and constants of a module."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = {node.name for node in tree.body if isinstance(node, kinds)} | set(assigned(tree))
    return {name for name in names if not name.startswith("_")}


def imported(tree: ast.Module) -> set[str]:
    return {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


LISTS = {name: assigned(tree)["__all__"] for name, tree in sorted(TREES.items()) if "__all__" in assigned(tree)}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_names_is_complete(name: str) -> None:
    value = LISTS[name]
    assert value is not None
    listed = ast.literal_eval(value)
    assert len(listed) == len(set(listed))
    assert defined(TREES[name]) <= set(listed)
    assert set(listed) <= defined(TREES[name]) | imported(TREES[name])


def test_there_are_lists() -> None:
    assert {"methods/__init__.py", "plan/__init__.py", "testing/__init__.py"} <= set(LISTS)
