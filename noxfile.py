"""Every check of the project, one session each: ``nox -s tests`` runs them all."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent))
from sessions import versions
from sessions.wheel import build, copy_tests

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PEERS = {  # the harness and the package of each implementation in the table of docs/peers.md, ours first
    "rigl-core": ("conformance_tests.harnesses.torch:TorchHarness", ""),
    "rigl-torch": ("conformance_tests.peers.rigl_torch:RigLTorchHarness", "rigl-torch==0.5.2"),
    "sparsimony": ("conformance_tests.peers.sparsimony:SparsimonyHarness", "sparsimony==0.1.0"),
    "sparselab": ("conformance_tests.peers.sparselab:SparseLabHarness", "sparselab==0.2.2"),
}
BACKENDS = ["numpy", "array_api", "torch", "jax", "tf"]


def install(session: nox.Session, *requirements: str, groups: tuple[str, ...] = ()) -> None:
    """Install requirements and dependency groups, all at the versions of constraints.txt.

    Python compiles what it imports; to compile all of these packages beforehand would take as long as to install them.
    """
    grouped = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install("-q", "--no-compile", "-c", "constraints.txt", *requirements, *grouped)


def install_backend(session: nox.Session, backend: str, extra: str) -> None:
    """Install the project with one extra and one framework, which is an extra of its own or a dependency group."""
    extras = f"{extra},{backend}" if backend in ("torch", "jax") else extra
    if backend == "torch" or (extra == "testing" and backend != "array_api"):
        extras += ",sparse"  # for truly sparse layers
    install(session, "-e", f".[{extras}]", groups=(backend,) if backend in ("tf", "array_api") else ())


@nox.session
def quickstart(session: nox.Session) -> None:
    """Train dense, Static, SET and RigL on real data; print the table and write quickstart.png."""
    options = argparse.ArgumentParser()
    options.add_argument("--backend", default="torch", choices=["numpy", "torch", "jax", "tf"])
    install_backend(session, options.parse_known_args(session.posargs)[0].backend, "examples")
    session.run("python", "examples/quickstart", *session.posargs)


@nox.session
def methods(session: nox.Session) -> None:
    """Train every method that the paper compares, in every framework, on real data; print one table."""
    install(session, "-e", ".[examples,torch,jax]", groups=("tf",))
    session.run("python", "examples/methods", *session.posargs)


@nox.session
def beyond_memory(session: nox.Session) -> None:
    """Train a network whose dense weights do not fit into 2 GB; print time and memory, and draw them."""
    install(session, "-e", ".[examples,torch,sparse]")
    session.run("python", "examples/beyond_memory", *session.posargs)


@nox.session
def claims(session: nox.Session) -> None:
    """Check the paper's claims on small networks, and write a page; ``-- --full`` is the session full_size."""
    if "--full" in session.posargs:
        session.posargs.remove("--full")
        full_size(session)
        return
    install(session, "-e", ".[examples,torch]")
    session.run("python", "examples/claims", *session.posargs)


@nox.session
def full_size(session: nox.Session) -> None:
    """The paper's experiments at full size: ``nox -s full_size -- wrn22-2 --data DIR``. They need a GPU."""
    install(session, "-e", ".[examples,torch]", "torchvision")
    session.run("python", "examples/full_size", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything, in one environment: style, types, and the built wheel under all tests that are not heavy.

    With arguments, pytest alone runs, with these: ``nox -s tests -- -k budget``.
    """
    install(session, groups=("package",))
    wheel = build(session)
    install(session, f"{wheel}[testing,torch,jax]", groups=("test", "jax", "tf", "tools", "lint", "types", "mlx"))
    session.run("python", "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(wheel))
    if not session.posargs:
        check_style(session)
        session.run("mypy")
    away = copy_tests(session)
    with session.chdir(away):
        session.run("pytest", *(session.posargs or ("-n", "2")))  # each worker holds all frameworks: some 5 GB
    if not session.posargs:
        test_fifth_library(session, away, "-n", "2")


@nox.session
def thorough(session: nox.Session) -> None:
    """The tests with twenty times the examples, and every method in every compiled mode, for nights."""
    install(session, "-e", ".[testing,torch,jax]", groups=("test", "jax", "tf", "tools"))
    session.run("pytest", "-n", "2", "--times", "20", *session.posargs)


@nox.session
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
def conformance(session: nox.Session, backend: str) -> None:
    """The suite on one backend, in an environment that has no other framework."""
    install_backend(session, backend, "testing")
    session.run("pytest", "conformance_tests/test_properties.py", "--backend", backend, *session.posargs)


@nox.session
@nox.parametrize("backend", list(versions.OLDEST_TESTS), ids=list(versions.OLDEST_TESTS))
def minimums(session: nox.Session, backend: str) -> None:
    """One backend with the oldest versions that pyproject.toml declares, which are read from there."""
    session.install("-q", "--no-compile", *versions.lower_bounds(PYPROJECT, backend), "-e", ".")
    lacking = [f"--deselect={name}" for name in versions.OLDEST_LACKS.get(backend, ())]
    session.run("pytest", "-q", *versions.OLDEST_TESTS[backend], *lacking, "--backend", backend, *session.posargs)
    if backend == "numpy":
        picture = Path(session.create_tmp()).resolve() / "quickstart.png"
        quick = ["--backend", "numpy", "--steps", "100", "--seeds", "1", "--quiet", "--picture", str(picture)]
        session.run("python", "examples/quickstart", *quick)


@nox.session(python=versions.installed())
@nox.parametrize("release", ["pinned", "newest"], ids=["pinned", "newest"])
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
def matrix(session: nox.Session, backend: str, release: str) -> None:
    """One backend on one Python, at the versions of constraints.txt or at the newest.

    For example, ``nox -s matrix-3.13`` or ``nox -s "matrix-3.13(torch, pinned)"``. A Python that is not installed is an
    error of nox.
    """
    wanted = versions.needed(PYPROJECT, backend)
    if release == "pinned":
        install(session, "-e", ".", *wanted)
    else:
        versions.refuse_cuda(session, wanted)
        session.install("-q", "--no-compile", "--upgrade", "-e", ".", *wanted)
    session.run("pytest", "-q", *versions.TESTS[backend], "--backend", backend, *session.posargs)


@nox.session
def workflows(session: nox.Session) -> None:
    """The workflow files of GitHub Actions: their schema, and what makes them unsafe."""
    install(session, "check-jsonschema", "zizmor")
    files = sorted(map(str, Path(".github/workflows").glob("*.yml")))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    session.run("zizmor", "--offline", "--no-progress", *files)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in the folder site; warnings are errors. ``-- --serve`` shows it while you write."""
    install(session, groups=("docs",))
    session.env["NO_MKDOCS_2_WARNING"] = "1"
    session.run("python", "-m", "mkdocs", *(["serve"] if "--serve" in session.posargs else ["build", "--clean"]))


@nox.session
def bench(session: nox.Session) -> None:
    """What updates and sparse steps cost, as ratios: ``nox -s bench -- --quick`` takes two minutes."""
    install(session, "-e", ".[torch,jax,sparse]", groups=("bench", "jax", "tf"))
    session.install("-q", "--no-deps", PEERS["sparselab"][1])
    session.run("python", "benchmarks", "--rigl-torch", rigl_torch(session), *session.posargs)


@nox.session
@nox.parametrize("backend", ["torch", "jax"], ids=["torch", "jax"])
def gpu(session: nox.Session, backend: str) -> None:
    """The suite and the steps of one backend on an NVIDIA GPU; writes benchmarks/gpu.md.

    The only session that needs one. Arguments go to the measurement: ``nox -s gpu -- --quick``.
    """
    if shutil.which("nvidia-smi") is None:
        session.error("nvidia-smi is not here: this session needs an NVIDIA GPU and its driver. No other session does.")
    session.run("nvidia-smi", external=True)
    install_backend(session, backend, "testing")
    if backend == "jax":
        install(session, "jax[cuda12]", groups=("jax",))
    session.env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the suite and its processes share the memory
    suite = ("pytest", "conformance_tests/test_properties.py", "--backend", backend, "--device", "cuda")
    session.run(*suite)
    session.run("python", "benchmarks/gpu.py", backend, *session.posargs)


def rigl_torch(session: nox.Session) -> str:
    """The Python of an environment with rigl-torch, which names dependencies that it can do without."""
    environment = Path(session.create_tmp()).resolve() / "rigl_torch"
    python = str(environment / "bin" / "python")
    if not environment.exists():
        session.run("python", "-m", "venv", str(environment))
        pip = (python, "-m", "pip", "install", "-q", "-c", "constraints.txt")
        session.run(*pip, "numpy", "torch", external=True)
        session.run(*pip, "--no-deps", "rigl-torch==0.5.2", external=True)
    return python


@nox.session
def peers(session: nox.Session) -> None:
    """Libraries from PyPI under the suite: writes the tables of docs/peers.md; with ``-- --check`` it compares them."""
    temporary = Path(session.create_tmp()).resolve()
    records = []
    for name, (harness, package) in PEERS.items():
        environment, record = temporary / name, str(temporary / f"{name}.json")
        python = str(environment / "bin" / "python")
        if not environment.exists():
            session.run("python", "-m", "venv", str(environment))
            pip = (python, "-m", "pip", "install", "-q", "-c", "constraints.txt")
            session.run(*pip, "-e", ".[testing,torch]", external=True)
            if package:  # they pin an old NumPy, or name what they can do without
                session.run(*pip, "--no-deps", package, external=True)
        session.run(python, "-m", "conformance_tests.peers", harness, record, external=True)
        records.append(record)
    session.run("python", "-m", "conformance_tests.peers.table", *records, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, by ruff."""
    install(session, groups=("lint",))
    check_style(session)


@nox.session
def types(session: nox.Session) -> None:
    """Types, by mypy, strict."""
    install(session, "-e", ".[testing,report,torch,jax]", groups=("types", "jax", "tf"))
    session.run("mypy")


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel, and look at what is in them; ``nox -s package -- dist`` puts them into a folder."""
    install(session, groups=("package",))
    wheel = build(session)
    for folder in session.posargs:
        shutil.copytree(wheel.parent, folder, dirs_exist_ok=True)


@nox.session
def fifth_library(session: nox.Session) -> None:
    """An adapter for MLX, written outside of the package, under the conformance suite of the installed wheel."""
    install(session, groups=("package",))
    install(session, f"{build(session)}[testing]", groups=("mlx",))
    test_fifth_library(session, copy_tests(session))


def check_style(session: nox.Session) -> None:
    """Ruff's rules and format."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


def test_fifth_library(session: nox.Session, away: Path, *options: str) -> None:
    """The suite on MLX, run as the author of an adapter outside of this repository runs it."""
    with session.chdir(away / "examples" / "fifth_library"):
        suite = ("python", "-W", "error", "-m", "rigl_core.testing", "--harness", "rigl_mlx_harness:MLXHarness")
        session.run(*suite, *options)
