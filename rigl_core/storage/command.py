"""The commands ``show``, ``diff`` and ``convert`` of ``python -m rigl_core``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rigl_core.storage.arrays import load_arrays, save_arrays
from rigl_core.storage.changes import changes
from rigl_core.storage.file import load, save
from rigl_core.storage.topology import Topology
from rigl_core.storage.turning import LAYOUTS, Layout

_ARRAYS = ".npz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; by default the program's own.

    Returns:
        0; or 1 if ``diff`` finds a difference; or 2 after an error, which is printed.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (OSError, ValueError, ImportError) as error:
        print(f"rigl_core {options.command}: {error}", file=sys.stderr)
        return 2
    return code


def _show(options: argparse.Namespace) -> int:
    """Print layers, recipe and checksum."""
    tables, console = _report()
    topology = load(options.file)
    console.print(tables.sparsity(topology.table))
    if topology.recipe is not None:
        console.print(tables.recipe(topology.recipe))
    console.print(f"sha256 {options.file.read_bytes()[-32:].hex()}", soft_wrap=True, highlight=False)
    return 0


def _diff(options: argparse.Namespace) -> int:
    """Print what two topologies have in common."""
    tables, console = _report()
    found = changes(_read(options.first, options.stored), _read(options.second, options.stored))
    console.print(tables.changes(found))
    return int(any(one.added or one.removed for one in found))


def _convert(options: argparse.Namespace) -> int:
    """Write a topology in another layout, under other names, or as another kind of file."""
    topology = _read(options.source, options.stored)
    if options.names is not None:
        topology = topology.renamed(_names_in(options.names))
    for rule in options.rename:
        topology = topology.renamed(_renamed(rule, topology))
    if options.layout is not None:
        topology = topology.in_layout(options.layout)
    (save_arrays if options.target.suffix == _ARRAYS else save)(options.target, topology)
    return 0


def _report() -> tuple[Any, Any]:
    """`rigl_core.report.tables`, and where to print what it makes."""
    from rigl_core.report import tables  # first, as it names the extra that is missing

    from rich.console import Console  # isort: skip

    return tables, Console()


def _read(path: Path, stored: Layout | None) -> Topology:
    if path.suffix != _ARRAYS:
        return load(path)
    if stored is None:
        raise ValueError(f"{path} holds arrays without axes: say with --from which framework stored them.")
    return load_arrays(path, stored)


def _names_in(path: Path) -> dict[str, str]:
    names = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{path} must be a JSON object of new names by old names.")
    return names


def _renamed(rule: str, topology: Topology) -> dict[str, str]:
    pattern, equals, replacement = rule.partition("=")
    if not equals:
        raise ValueError(f"--rename {rule!r} has no '=': write PATTERN=REPLACEMENT.")
    try:
        names = {layer.name: re.sub(pattern, replacement, layer.name) for layer in topology.layers}
    except (re.error, IndexError) as error:
        raise ValueError(f"--rename {rule!r} is no regular expression and its replacement: {error}.") from error
    if all(old == new for old, new in names.items()):
        raise ValueError(f"--rename {rule!r} changes none of {', '.join(names)}.")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rigl_core", description="Topologies in files.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print layers, recipe and checksum")
    show.add_argument("file", type=Path)
    show.set_defaults(run=_show)
    diff = commands.add_parser("diff", help="compare two topologies; exit with 1 if they differ")
    diff.add_argument("first", type=Path)
    diff.add_argument("second", type=Path)
    diff.set_defaults(run=_diff)
    convert = commands.add_parser("convert", help="change layout, names, or the kind of file (.npz: plain bool arrays)")
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path)
    convert.add_argument("--layout", choices=LAYOUTS, help="the framework whose layout the result has")
    convert.add_argument("--names", type=Path, help="a JSON file with an object of new names by old names")
    convert.add_argument(
        "--rename", action="append", default=[], metavar="PATTERN=REPLACEMENT", help="a regular expression; repeatable"
    )
    convert.set_defaults(run=_convert)
    for command in (diff, convert):
        command.add_argument("--from", dest="stored", choices=LAYOUTS, help="the framework that stored an .npz")
    return parser
