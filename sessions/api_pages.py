"""The pages of the API reference, made from the public names: none can be missing."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTIONS: Mapping[str, tuple[str, ...]] = {  # of the core's page: titles, and the modules whose names they have
    "Recipes of methods": ("rigl_core.methods",),
    "Recipes and their parts": ("rigl_core.recipe", "rigl_core.parts"),
    "Layers and plans": ("rigl_core.model", "rigl_core.plan"),
    "Costs": ("rigl_core.costs",),
    "Looks": ("rigl_core.inspect",),
    "Arrays": ("rigl_core.arrays",),
}
MORE = {
    "Reports": "rigl_core.report",
    "Topologies in files": "rigl_core.storage",
    "Networks without a framework": "rigl_core.serving",
}
ADAPTERS = ("numpy", "torch", "jax", "tf", "keras")
AUTHORS = {"What an adapter imports": "rigl_core.adapter", "The conformance kit": "rigl_core.testing"}


def pages() -> dict[str, str]:
    """The Markdown of each page, by file name. A name is documented once; elsewhere it is a link."""
    seen: set[str] = set()
    return {"core.md": _core(seen), "adapters.md": _adapters(seen), "authors.md": _authors(seen)}


def _core(seen: set[str]) -> str:
    names = dict(_imported(ROOT / "rigl_core" / "public.py"))
    left = dict(names)
    text = "# The core\n\nThe names of `rigl_core`, and of the packages inside of it.\n"
    for title, modules in SECTIONS.items():
        chosen = {name: path for name, path in left.items() if path.startswith(modules)}
        left = {name: path for name, path in left.items() if name not in chosen}
        text += _section(title, chosen, seen)
    if left:
        raise ValueError(f"names of rigl_core without a section of the API pages: {sorted(left)}")
    for title, module in MORE.items():
        text += _section(f"{title} (`{module}`)", dict(_public(module)), seen)
    return text


def _adapters(seen: set[str]) -> str:
    text = "# Adapters\n\nThe same words mean the same things in all of them.\n"
    for backend in ADAPTERS:
        module = f"rigl_backends.{backend}"
        text += _section(f"`{module}`", dict(_public(module)), seen)
    return text


def _authors(seen: set[str]) -> str:
    text = (
        "# For adapters' authors\n\n[The fifth library](../../examples/fifth_library/README.md) shows them at work.\n"
    )
    for title, module in AUTHORS.items():
        text += _section(f"{title} (`{module}`)", dict(_public(module)), seen)
    return text


def _section(title: str, names: Mapping[str, str], seen: set[str]) -> str:
    """A heading, what has not been documented yet, and links to the rest."""
    text, links = f"\n## {title}\n", []
    for name, path in sorted(names.items(), key=_by_name):
        if path in seen:
            links.append(f"[`{name}`][{path}]")
        else:
            seen.add(path)
            text += f"\n::: {path}\n"
    return text + (f"\nAlso {', '.join(links)}.\n" if links else "")


def _by_name(item: tuple[str, str]) -> str:
    return item[0].lower()


def _public(module: str) -> Iterator[tuple[str, str]]:
    """The names in a module's ``__all__``, or all that it imports, and where each is defined."""
    file = _file(module)
    found = {name: path for name, path in _imported(file) if not name.startswith("_")}
    for name in _listed(file) or found:
        yield name, found.get(name, f"{module}.{name}")


def _imported(file: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _listed(file: Path) -> list[str]:
    for node in ast.parse(file.read_text("utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return []


def _file(module: str) -> Path:
    base = ROOT / "backends" if module.startswith("rigl_backends") else ROOT
    path = base.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
