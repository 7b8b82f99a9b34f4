"""The wheel: it is built, looked at, and tested where no sources are."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import nox

TESTED = [
    "tests",
    "conformance_tests",
    "docs",
    "examples",
    "benchmarks",
    "conftest.py",
    "pyproject.toml",
    "README.md",
    "CONTRIBUTING.md",
]


def build(session: nox.Session) -> Path:
    """The wheel, made of the sdist; its contents are checked."""
    built = Path(session.create_tmp()).resolve() / "built"
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "-q", "--outdir", str(built))
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    check_contents(session, wheel)
    session.log(f"built {wheel.name} and {sdist.name}")
    return wheel


def copy_tests(session: nox.Session) -> Path:
    """A folder with the tests and without the sources, so that the installed wheel is tested."""
    away = Path(session.create_tmp()).resolve() / "away"
    shutil.rmtree(away, ignore_errors=True)
    for name in TESTED:
        source, target = Path(name), away / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return away


def check_contents(session: nox.Session, wheel: Path) -> None:
    """The wheel holds exactly rigl_core and rigl_backends: every source file of theirs and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    expected = {
        str(path.relative_to(root))
        for root, package in ((Path(), "rigl_core"), (Path("backends"), "rigl_backends"))
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts  # Python and numba keep compiled code there
    }
    if files != expected:
        session.error(f"the wheel's files differ from the sources: {sorted(files ^ expected)}")
