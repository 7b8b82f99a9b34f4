"""The command line: show, diff and convert."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rigl_core import Layer
from rigl_core.storage import Topology, load, save
from rigl_core.storage.arrays import load_arrays, save_arrays
from rigl_core.storage.command import main
from rigl_core.testing.checks import checks
from tests.storage.topologies import RECIPE, assert_equal, random_topology

FOUND = random_topology((Layer("fc1.weight", (4, 6), (1,), (0,)), Layer("conv.weight", (2, 3, 3, 3), (1,), (0,))))


@pytest.fixture
def found(tmp_path: Path) -> Path:
    save(tmp_path / "found.rigl", FOUND)
    return tmp_path / "found.rigl"


def test_show(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(found)]) == 0
    printed = capsys.readouterr().out
    assert "RigL, step 1,234" in printed
    for row in FOUND.table.rows:
        assert any(all(cell in line for cell in row) for line in printed.splitlines()), row
    assert '["fc*"]' in printed
    assert f"sha256 {found.read_bytes()[-32:].hex()}" in printed


def test_diff(found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of two layouts; the exit code says whether there is a difference."""
    save(tmp_path / "same.rigl", FOUND.in_layout("jax"))
    assert main(["diff", str(found), str(tmp_path / "same.rigl")]) == 0
    masks = {name: mask.copy() for name, mask in FOUND.masks.items()}
    on, off = (tuple(np.argwhere(masks["fc1.weight"] == value)[0]) for value in (True, False))
    masks["fc1.weight"][on], masks["fc1.weight"][off] = False, True
    save(tmp_path / "moved.rigl", Topology(FOUND.layers, masks))
    capsys.readouterr()
    assert main(["diff", str(found), str(tmp_path / "moved.rigl")]) == 1
    active = int(FOUND.masks["fc1.weight"].sum())
    equal, lines = f"{100 * (active - 1) / (active + 1):.2f}", capsys.readouterr().out.splitlines()
    lines = [line.replace("│", " ") for line in lines]
    assert any(line.split() == ["fc1.weight", "4x6", equal, "1", "1"] for line in lines)
    assert any(line.split() == ["conv.weight", "2x3x3x3", "100.00", "0", "0"] for line in lines)


@checks("P6")
def test_convert(found: Path, tmp_path: Path) -> None:
    target = tmp_path / "flax.rigl"
    rename = ["--rename", r"(\w+)\.weight=\1/kernel"]
    assert main(["convert", str(found), str(target), "--layout", "jax", *rename]) == 0
    assert load(target).layers == (
        Layer("fc1/kernel", (6, 4), (0,), (1,)),
        Layer("conv/kernel", (3, 3, 3, 2), (2,), (3,)),
    )
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"fc1/kernel": "fc1.weight", "conv/kernel": "conv.weight"}))
    assert main(["convert", str(target), str(target), "--layout", "torch", "--names", str(names)]) == 0
    assert_equal(load(target), FOUND)


@checks("P6")
def test_convert_to_plain_arrays_and_back(found: Path, tmp_path: Path) -> None:
    arrays, back = tmp_path / "masks.npz", tmp_path / "back.rigl"
    assert main(["convert", str(found), str(arrays), "--layout", "keras"]) == 0
    with np.load(arrays, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["fc1.weight"], FOUND.masks["fc1.weight"].T, strict=True)
        assert file["conv.weight"].shape == (3, 3, 3, 2)
    assert main(["convert", str(arrays), str(back), "--from", "keras", "--layout", "torch"]) == 0
    assert load(back).recipe is None
    assert main(["diff", str(found), str(arrays), "--from", "keras"]) == 0
    assert main(["diff", str(found), str(back)]) == 0


@checks("P6")
def test_arrays_have_any_names(tmp_path: Path) -> None:
    names = ("file", "self", "a/b.npy", "/c", "größe")
    topology = random_topology(tuple(Layer(name, (3,)) for name in names))
    save_arrays(tmp_path / "x.npz", topology)
    np.testing.assert_array_equal(load_arrays(tmp_path / "x.npz", "torch").masks["file"], topology.masks["file"])
    assert [layer.name for layer in load_arrays(tmp_path / "x.npz", "torch").layers] == list(names)


@checks("P3", "P6")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "{0}/missing.rigl"], "rigl_core show: [Errno 2] No such file or directory"),
        (["show", "{0}/damaged.rigl"], "damaged.rigl cannot be read as a topology: its checksum is wrong"),
        (["diff", "{0}/found.rigl", "{0}/damaged.rigl"], "rigl_core diff: "),
        (["diff", "{0}/found.rigl", "{0}/other.rigl"], "it has no mask for 'fc1.weight', 'conv.weight'"),
        (["convert", "{0}/x.npz", "{0}/out"], "x.npz holds arrays without axes: say with --from which framework"),
        (["convert", "{0}/bad.npz", "{0}/out", "--from", "jax"], "bad.npz cannot be read as an .npz of arrays"),
        (["convert", "{0}/floats.npz", "{0}/out", "--from", "jax"], "masks has a float64 array of shape (3, 3)"),
        (["convert", "{0}/objects.npz", "{0}/out", "--from", "jax"], "objects.npz cannot be read as an .npz of arrays"),
        (["convert", "{0}/found.rigl", "{0}/out", "--rename", "x"], "--rename 'x' has no '=': write PATTERN=REPLACEM"),
        (["convert", "{0}/found.rigl", "{0}/out", "--rename", "(=x"], "is no regular expression and its replacement"),
        (
            ["convert", "{0}/found.rigl", "{0}/out", "--rename", r"fc=\4"],
            "is no regular expression and its replacement",
        ),
        (
            ["convert", "{0}/found.rigl", "{0}/out", "--rename", "x=y"],
            "--rename 'x=y' changes none of fc1.weight, conv",
        ),
        (["convert", "{0}/found.rigl", "{0}/out", "--rename", "^.*=a"], "layers holds the name 'a' more than once"),
        (["convert", "{0}/found.rigl", "{0}/out", "--names", "{0}/list.json"], "must be a JSON object of new names"),
    ],
)
def test_errors_are_sentences(
    arguments: list[str], message: str, found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, content = found.parent, bytearray(found.read_bytes())
    content[-40] ^= 1
    (folder / "damaged.rigl").write_bytes(content)
    (folder / "bad.npz").write_bytes(b"PK\3\4 not a zip")
    (folder / "list.json").write_text("[1]")
    save(folder / "other.rigl", random_topology((Layer("a", (3,)),)))
    np.savez(folder / "floats.npz", a=np.ones((3, 3)))
    np.savez(folder / "objects.npz", a=np.array([{"a": 1}], dtype=object))
    assert main([argument.format(folder) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (folder / "out").exists()


def test_as_a_program(found: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "rigl_core"]
    shown = subprocess.run([*command, "show", str(found)], capture_output=True, text=True, check=True)
    assert "fc1.weight" in shown.stdout
    assert shown.stderr == ""
    missing = "import sys; sys.modules['rich'] = None; import rigl_core.storage.command as c; sys.exit(c.main())"
    failed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", missing, "show", str(found)], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2
    assert "pip install 'rigl-core[report]'" in failed.stderr
    assert RECIPE.method in shown.stdout
