"""The example that checks the paper's claims: its program on a few steps, its arithmetic, and its paths."""

from __future__ import annotations

import importlib
import json
import math
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

EXAMPLE = Path(__file__).parents[2] / "examples" / "claims"
MODULES = sorted(path.stem for path in EXAMPLE.glob("*.py"))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The modules of the example, by plain names, as Python finds them when it runs the folder."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    for name in MODULES:  # other examples have modules of the same names
        monkeypatch.delitem(sys.modules, name, raising=False)
    path = list(sys.path)
    yield {name: importlib.import_module(name) for name in MODULES if name != "__main__"}
    sys.path[:] = path
    for name in MODULES[1:]:
        del sys.modules[name]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLE), "--data", "digits", "--quick", "--quiet", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.heavy
def test_it_writes_a_page_and_goes_on(tmp_path: Path) -> None:
    """The second run keeps what the first one trained."""
    done = run(tmp_path, "--folder", "out", "--page", "page.md")
    assert (done.returncode, done.stdout) == (0, "The page is page.md.\n"), done.stderr
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    for heading in ("Claim by claim", "Images, sparsity 98 %", "Text, sparsity 75 %", "The landscape", "Hyper-param"):
        assert f"# {heading}" in text
    assert text.count("| RigL ×3 |") == 3
    assert re.search(r"^\| quadratic, sparse \| \d\.\d\d ± 0\.00 \|$", text, re.MULTILINE)
    for picture in ("costs", "paths"):
        assert (tmp_path / "images" / f"claims_{picture}.png").stat().st_size > 10_000
    kept = (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8")
    assert run(tmp_path, "--folder", "out", "--only", "images", "landscape").returncode == 0
    assert (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8") == kept


def test_a_page_of_some_trainings(example: dict[str, Any], tmp_path: Path) -> None:
    """What the program does, without its processes: train, compare, look at the landscape, write."""
    case, setting = example["cases"].Case, example["cases"].Setting(0.1)
    tasks = {"images": example["images"].Images("digits"), "text": example["text"].Text()}
    figures = {}
    for task, method, sparsity in (
        ("images", "RigL", 0.9),
        ("images", "Static", 0.9),
        ("images", "dense", 0.0),
        ("images", "small dense", 0.9),
        ("text", "SET", 0.75),
    ):
        runs = [case(task, method, sparsity, setting, 8, seed) for seed in (0, 1)]
        results = [example["training"].train(run, tasks[task]) for run in runs]
        figures[example["figures"].Key(task, method, sparsity)] = results
    assert [results[0].active for results in figures.values()] == [2382, 2382, 23824, 2395, 18656]
    settings = (("Static", setting), ("RigL", setting), ("pruning", setting))
    view = example["landscape"].walk(example["walks"].Walk(0.9, settings, 8, 0), tasks["images"])
    assert {len(curve) for curve in view.curves.values()} == {21}
    about = example["page"].About(
        {"images": 8, "text": 8}, example["tuned"].read(), 50, 1, 0.9, dict.fromkeys(tasks, "x")
    )
    text = example["page"].page(figures, [view], about, "images")
    assert "| RigL is better than a static random topology (section 4.1)" in text
    assert "| The straight path from Static to pruning has a barrier (section 4.4) |" in text
    assert re.search(r"^\| small dense \| \d+\.\d ± \d+\.\d \| 2,395 \| 0\.\d{3} \|  \|  \|$", text, re.MULTILINE)
    example["pictures"].draw_costs(figures, tmp_path / "costs.png")
    example["pictures"].draw_paths(view.curves, tmp_path / "paths.png")
    assert all((tmp_path / name).stat().st_size > 5_000 for name in ("costs.png", "paths.png"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--text", "nowhere.txt", "--data", "digits"], "claims: --text nowhere.txt cannot be read"),
        (["--data", "nowhere"], "claims: --data nowhere is neither digits nor fashion-mnist"),
    ],
)
def test_missing_data(example: dict[str, Any], options: list[str], said: str) -> None:
    program = runpy.run_path(str(EXAMPLE / "__main__.py"), run_name="claims")
    with pytest.raises(SystemExit, match=said):
        program["main"](options)


def test_a_few_steps_tune_nothing(example: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    before = example["tuned"].PATH.read_bytes()
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLE / "__main__.py"), run_name="claims")["main"](["--quick", "--tune"])
    assert "argument --tune: a few steps choose nothing" in capsys.readouterr().err
    assert example["tuned"].PATH.read_bytes() == before


def test_a_gain_is_clear_where_it_exceeds_its_error(example: dict[str, Any]) -> None:
    key, result = example["figures"].Key, example["cases"].Result
    rows = {
        key("images", "RigL", 0.9): [result(85.0, 1), result(86.0, 1)],
        key("images", "Static", 0.9): [result(80.0, 1), result(81.0, 1)],
        key("images", "SET", 0.9): [result(84.0, 1), result(86.5, 1)],
        key("images", "SNIP", 0.9): [result(10.0, 1)],
    }
    rigl, static, set_, snip = rows
    found = [example["figures"].compare(rows, *pair) for pair in ((rigl, static), (static, rigl), (rigl, set_))]
    assert [each.verdict for each in found] == ["holds", "does not hold", "no clear difference"]
    assert found[0].gain == 5
    assert found[0].error == pytest.approx(2 * math.sqrt(0.5 / 2 + 0.5 / 2))
    assert example["figures"].compare(rows, rigl, snip).verdict == "no clear difference", "one seed tells no error"
    by_says = {claim.says: claim.verdict for claim in example["statements"].claims(rows)}
    assert by_says["RigL is better than a static random topology"] == "holds"


def test_gains_within_seeds(example: dict[str, Any]) -> None:
    found = example["figures"].difference(0.9, [0.5, 0.7])
    assert found.gain == pytest.approx(0.6)
    assert found.error == pytest.approx(2 * math.sqrt(0.02) / math.sqrt(2))
    assert found.verdict == "holds"
    assert example["figures"].difference(0.9, [0.5]).verdict == "no clear difference"


def test_fewer_bits_are_better(example: dict[str, Any]) -> None:
    key, result = example["figures"].Key, example["cases"].Result
    rows = {key("text", m, 0.9): [result(s, 1), result(s + 0.01, 1)] for m, s in (("RigL", 2.0), ("SET", 2.5))}
    assert example["figures"].compare(rows, *rows).verdict == "holds"


def test_every_method_is_tuned_by_as_many_trainings(example: dict[str, Any]) -> None:
    tuned, methods = example["tuned"], example["cases"].COMPARED
    for task in tuned.RATES:
        found = {method: tuned.candidates(task, method) for method in methods[task]}
        assert {len(set(settings)) for settings in found.values()} == {6}
        assert {max(s.learning_rate for s in settings) for settings in found.values()} == {max(tuned.RATES[task])}
    written = {(task, method) for task, method, _ in tuned.read()}
    assert written == {(task, method) for task in tuned.RATES for method in methods[task]}
    assert json.loads(tuned.PATH.read_text(encoding="utf-8"))


def hill(weights: dict[str, Tensor], batch: None = None) -> Tensor:
    """A loss with a hill between -1 and 1 on the first axis, which is low beside it."""
    x, y = weights["w"]
    return (x.square() - 1).square() + torch.exp(-4 * (x.square() + y.square()))


def test_a_curve_goes_around_a_hill(example: dict[str, Any]) -> None:
    paths = example["paths"]
    start, end = ({"w": torch.tensor([x, 0.0])} for x in (-1.0, 1.0))
    line = paths.straight(start, end)
    assert line.at(0.0)["w"].tolist() == [-1, 0]
    assert line.at(0.75)["w"].tolist() == [0.5, 0]
    straight = paths.losses(line, hill, [None], positions=11)
    assert straight[5] == pytest.approx(2)
    assert paths.barrier(straight) == pytest.approx(2 - straight[0], abs=1e-6)
    start["w"][1] = end["w"][1] = 0.1
    for controls in (1, 2):
        curve = paths.bent(start, end, hill, [None] * 400, controls=controls, learning_rate=0.05)
        assert len(curve.points) == controls + 2
        bent = paths.losses(curve, hill, [None])
        assert paths.barrier(bent) < paths.barrier(straight) - 0.5
        assert curve.at(1.0)["w"].tolist() == end["w"].tolist()


def test_a_curve_stays_among_sparse_weights(example: dict[str, Any]) -> None:
    paths, only = example["paths"], {"w": torch.tensor([True, False])}
    start, end = ({"w": torch.tensor([x, 0.0])} for x in (-1.0, 1.0))
    curve = paths.bent(start, end, hill, [None] * 50, learning_rate=0.05, only=only)
    assert all(float(curve.at(i / 10)["w"][1]) == 0 for i in range(11))
