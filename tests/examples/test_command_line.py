"""``python examples/quickstart``, as users run it: in a process of its own and in the user's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cli
from tests.examples.conftest import QUICKSTART
from tests.examples.idx_files import write_dataset

WITHOUT = """
import sys
class Missing:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == {!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Missing)
"""
SHORT = ["--steps", "20", "--sparsity", "0.9", "--quiet"]


def quickstart(folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the quickstart in ``folder``, after the Python code ``before``."""
    program = f"{before}\nimport runpy\nrunpy.run_path({str(QUICKSTART)!r}, run_name='__main__')"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_table_and_the_picture(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(QUICKSTART), *SHORT, "--seeds", "2", "--backend", "numpy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for text in (
        "scikit-learn digits: MLP 64-300-100-10, 20 steps, 2 seeds, numpy",
        "50,200",
        "5,020",
        "quickstart.png",
    ):
        assert text in done.stdout
    for method in ("dense", "Static", "SET", "RigL"):
        assert method in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("backend", cli.BACKENDS)
def test_any_folder_of_idx_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str) -> None:
    write_dataset(tmp_path, gzipped=True)
    picture = tmp_path / "other.svg"
    options = ["--data", "fashion-mnist", "--data-path", str(tmp_path), "--backend", backend, "--picture", str(picture)]
    cli.main([*SHORT, "--seeds", "1", *options])
    assert f"Fashion-MNIST: MLP 15-300-100-4, 20 steps, 1 seed, {backend}" in capsys.readouterr().out
    assert picture.stat().st_size > 1000


def test_time_and_memory_where_a_layer_is_large_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A first layer of 256 x 300 weights can be truly sparse in PyTorch; one of 64 x 300 cannot."""
    write_dataset(tmp_path, gzipped=False, shape=(16, 16))
    cli.main([*SHORT, "--seeds", "1", "--data", str(tmp_path), "--picture", str(tmp_path / "large.png")])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    by_method = {row[0]: row for row in rows if row and row[-1]}
    dense, masked, truly_sparse = (float(by_method[name][-1]) for name in ("dense", "RigL", "RigL, truly sparse"))
    assert masked > dense > 2 * truly_sparse
    assert by_method["RigL"][3] == by_method["RigL, truly sparse"][3]
    assert all(float(row[-2]) > 0 for row in by_method.values() if row[0] != "Method")


def test_layers_that_are_too_small_are_not_truly_sparse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path, gzipped=False, shape=(8, 8))
    cli.main([*SHORT, "--seeds", "1", "--data", str(tmp_path), "--picture", str(tmp_path / "small.png")])
    shown = capsys.readouterr().out
    assert "RigL" in shown
    assert "truly" not in shown
    assert "ms a" not in shown


def test_a_missing_data_set_ends_without_a_traceback(tmp_path: Path) -> None:
    report = "import atexit, sys\natexit.register(lambda: print('torch' in sys.modules))"
    done = quickstart(
        tmp_path, "--backend", "numpy", "--data", "fashion-mnist", "--data-path", str(tmp_path), before=report
    )
    assert done.returncode == 1
    assert "apt-get install dataset-fashion-mnist" in done.stderr
    assert "--data-path DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "False\n", "another framework than the chosen one was imported"


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("torch", "quickstart: rigl_backends.torch needs PyTorch: pip install 'rigl-core[torch]'"),
        ("rich", "quickstart needs rich: pip install 'rigl-core[examples,torch]'"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(tmp_path: Path, missing: str, advice: str) -> None:
    done = quickstart(tmp_path, before=WITHOUT.format(missing))
    assert done.returncode == 1
    assert done.stderr.strip() == advice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", "1"], "argument --sparsity: '1' is no number from 0 to below 1"),
        (["--sparsity", "0.9", "nan"], "argument --sparsity: 'nan' is no number from 0 to below 1"),
        (["--seeds", "0"], "argument --seeds: '0' is no whole number of at least 1"),
        (["--steps", "1.5"], "argument --steps: '1.5' is no whole number of at least 1"),
        (["--backend", "pytorch"], "argument --backend: invalid choice: 'pytorch'"),
        (["--picture", "nowhere/at.png"], "argument --picture: the folder 'nowhere' does not exist"),
        (["--picture", "picture.doc"], "argument --picture: 'picture.doc' must end in .png, .svg, .pdf"),
        (["--data-path", "somewhere"], "argument --data-path: it goes with --data fashion-mnist"),
    ],
)
def test_wrong_options_are_named(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.read_options(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_sparsity_given_twice_is_trained_once() -> None:
    assert cli.read_options(["--sparsity", "0.9", "0.5", "0.90"]).sparsity == [0.9, 0.5]
