"""The benchmarks run in processes of their own, on small layers. The tests check their answers, not their times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPES = [("first", (64, 32, 3, 3)), ("second", (128, 64, 1, 1)), ("third", (1024, 128))]


def ask(questions: int = 1, **request: Any) -> list[Any]:
    """The answers of a contender's process, without the first, which says that it has warmed up."""
    command = [sys.executable, str(BENCHMARKS / "worker.py"), json.dumps(request)]
    result = subprocess.run(command, input="1\n" * questions, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    ready, *answers = map(json.loads, result.stdout.splitlines())
    assert ready == "ready"
    return answers


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCHMARKS), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("module", "momentum"), [("numpy", True), ("torch", True), ("jax", False), ("tf", False)])
def test_updates(module: str, momentum: bool) -> None:
    """The process itself fails if its update moves no connections, or changes their number."""
    contender = {"module": module, "shapes": SHAPES, "momentum": momentum, "options": {}}
    answers = ask(2, task="update", **contender)
    assert [sorted(answer) for answer in answers] == 2 * [["floor", "seconds"]]
    assert all(number > 0 for answer in answers for number in answer.values())


@pytest.mark.parametrize("module", ["numpy", "jax", "tf"])
def test_memory(module: str) -> None:
    shapes = [("first", (1024, 1024)), ("second", (512, 1024))]  # Linux counts memory to half a megabyte
    (answer,) = ask(task="memory", module=module, shapes=shapes, momentum=False, options={})
    assert answer["layer"] == 4 * 1024 * 1024
    assert isinstance(answer["bytes"], int)


def test_an_update_under_xla_takes_at_most_two_layers_of_memory() -> None:
    shapes = [(f"layer{i}", (1024, 1024)) for i in range(8)]
    answers = ask(2, task="memory", module="tf", shapes=shapes, momentum=False, options={"xla": True})
    assert all(answer["bytes"] <= 2 * answer["layer"] for answer in answers)


def test_memory_that_an_allocator_keeps_is_not_measured() -> None:
    """Copies that take no new memory, as those of an allocator that has kept some, are refused."""
    code = """
import numpy as np
import worker
from subjects import Kernels
kernels = Kernels((("layer", (1 << 22,)),))
class Keeps:
    kept = np.ones(1 << 22, np.float32)
    def copies(self):
        self.kept[...] = 2
class GivesBack:
    def copies(self):
        return np.ones(1 << 22, np.float32)
worker.check_that_memory_shows(GivesBack(), kernels)
worker.check_that_memory_shows(Keeps(), kernels)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert "RuntimeError: copies of all gradients took" in result.stderr
    assert "GivesBack" not in result.stderr


@pytest.mark.parametrize(("module", "options"), [("jax", {}), ("tf", {"xla": True})])
def test_one_trace_in_a_whole_run(module: str, options: dict[str, bool]) -> None:
    (answer,) = ask(task="compiling", module=module, shapes=SHAPES, momentum=False, options=options)
    assert answer["traces"] == 1


@pytest.mark.parametrize(("module", "model"), [("torch", "mlp"), ("jax", "gru"), ("tf", "convnet")])
def test_ordinary_steps(module: str, model: str) -> None:
    (answer,) = ask(task="steps", module=module, model=model, optimizer="momentum")
    assert len(answer["dense"]) == len(answer["sparse"]) == 1


def test_a_run_for_a_gpu_writes_its_page(tmp_path: Path) -> None:
    """On a CPU, where the same code runs; memory is not counted there. The other framework's figures stay."""
    own = {"device": "A", "dense": 0.002, "ratios": {"sparse": 1.1, "update": 2}, "bytes": None}
    jax = {"rounds": 2, "steps": 3, "versions": {"jax": "9"}, "models": {"gru": own}}
    (tmp_path / "gpu.json").write_text(json.dumps({"jax": jax}))
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "torch", "--device", "cpu", "--quick"]
    command += ["--output", str(tmp_path / "gpu.md")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith(("| torch", "| jax"))]
    assert [row[:2] for row in rows] == [["| jax", "gru"], ["| torch", "mlp"]]
    assert all(float(cell.removesuffix(" x")) > 0 for row in rows for cell in row[2:5])
    assert all(row[5] == "not counted" for row in rows)


@pytest.mark.heavy
def test_steps_on_a_device_of_jax() -> None:
    (answer,) = ask(task="device", module="jax", model="mlp", optimizer="Adam", device="cpu", kinds=["dense"])
    assert answer["seconds"]["dense"] > 0
    assert (answer["bytes"], answer["name"]) == (None, "cpu")


def test_memory_on_a_gpu_is_a_ratio_too() -> None:
    code = """
from gpu import page
peaks = {"dense": 2e8, "sparse": 3e8, "update": 4e8}
own = {"device": "A", "dense": 0.002, "ratios": {"sparse": 1.1, "update": 2}, "bytes": peaks}
text = page({"torch": {"rounds": 2, "steps": 3, "versions": {"torch": "9"}, "models": {"mlp": own}}})
assert "| torch | mlp | 2.00 | 1.10 x | 2.00 x | 200.0 | 1.50 x | 2.00 x |" in text and "torch: A; torch 9" in text
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_device_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "torch", "--device", "nowhere", "--quick"]
    command += ["--output", str(tmp_path / "gpu.md")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "nowhere" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("contender", "baseline", "threads"),
    [
        *(("feature-major", "dense", 1), ("batch-major", "dense", 2), ("CSR", "dense", 1), ("products", "BLAS", 1)),
        *(("update", "dense product", 1), ("mlp active", "dense", 1), ("transformer active", "dense", 1)),
        *(("serving", "dense inference", 1), ("CSR module", "dense inference", 1)),
        *(("convolution 8 16 3 5", "dense", 1), ("jax convolution 8 16 3 5", "jax dense", 1)),
        *(("jax active", "jax dense", 1), ("jax active", "jax kernels", 2)),
        pytest.param("tf convolution 8 16 3 5", "tf dense", 1, marks=pytest.mark.heavy),
    ],
)
def test_products_of_sparse_layers(contender: str, baseline: str, threads: int) -> None:
    layer = {"size": 264, "batch": 4, "density": 0.2, "threads": threads}
    (answer,) = ask(task="products", contender=contender, baseline=baseline, layer=layer)
    assert {name: len(seconds) for name, seconds in answer.items()} == {"contender": 1, "baseline": 1}


def test_a_run_and_the_check_against_an_earlier_one(tmp_path: Path) -> None:
    first = run("--quick", "--only", "import", "--output", str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert "import rigl_core" in first.stdout
    report = json.loads((tmp_path / "results.json").read_text())
    assert [result["ratio"] > 0 for result in report["results"]] == [True, True]
    for factor, expected in ((10, 0), (0.1, 1)):
        earlier = tmp_path / f"{factor}.json"
        results = [{**result, "ratio": factor * result["ratio"]} for result in report["results"]]
        earlier.write_text(json.dumps({**report, "results": results}))
        again = run("--quick", "--only", "import", "--output", str(tmp_path), "--check", str(earlier))
        assert again.returncode == expected, again.stderr
        assert ("the ratio was" in again.stdout) == bool(expected)


def test_all_results_have_a_place_in_the_table() -> None:
    """It would be found missing after all had been measured."""
    code = """
from results import ORDER
from sparse import _groups
names = {case.benchmark for quick in (False, True) for cases in _groups(quick) for case in cases}
assert len(names) > 5 and names <= set(ORDER), names - set(ORDER)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_recorded_table(tmp_path: Path) -> None:
    run("--quick", "--only", "import", "--output", str(tmp_path))
    code = """
import sys
from dataclasses import replace
from pathlib import Path
from results import Report
from table import into_text
report = Report.read(Path(sys.argv[1]) / "results.json")
first = into_text(report, "before\\n<!-- table -->\\n<!-- end of the table -->\\nafter")
assert "| import | import rigl_core |" in first and first.startswith("before\\n") and first.endswith("\\nafter")
assert into_text(report, first) == first
first = report.results[0]
changed = replace(report, results=[replace(first, figure=7.0), replace(first, benchmark="update")])
kept = report.over(replace(changed, results=changed.results[1:]))
assert [result.benchmark for result in kept.results] == ["import", "import", "update"]
assert changed.over(report).results == changed.results
assert report.over(replace(changed, machine="another")) == report
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
