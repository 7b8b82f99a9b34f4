"""The embedding example: it learns with NumPy alone, and its masks are those of the NumPy adapter."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rigl_backends.numpy import SGD, sparsify
from rigl_core import Cosine, ErdosRenyi, Layer, RigL, UpdateSchedule

EXAMPLE = Path(__file__).parents[2] / "examples" / "embedding"
ALONE = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] not in sys.stdlib_module_names | {'numpy', 'rigl_core', '__main__'}:
            raise ImportError(f'{name} is neither NumPy nor of the standard library')
sys.meta_path.insert(0, Refuse())
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""


def run(*arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", ALONE, str(EXAMPLE), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def scores(line: str) -> tuple[float, float]:
    """The bits per character, and the share of characters that the network guesses."""
    bits, guessed = re.findall(r"\d+\.\d+", line)
    return float(bits), float(guessed)


def test_it_learns_with_numpy_alone() -> None:
    before, after, *table = run("--steps", "300", "--sparsity", "0.9").splitlines()
    assert scores(after)[0] < scores(before)[0] - 1
    assert scores(after)[1] > scores(before)[1] + 10
    active, zeros = (int(number.replace(",", "")) for number in table[-1].split()[-2:])
    assert active == round((active + zeros) * 0.1)


def test_it_reads_a_text_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "abc.txt").write_text("abcdefghijklmnopqrstuvwxyz" * 80, encoding="utf-8")
    _, after, *_ = run("--steps", "200", "--sparsity", "0.5", "--text", str(tmp_path / "abc.txt")).splitlines()
    assert scores(after)[1] == 100


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_it_trains_as_the_numpy_adapter_does(sparsity: float) -> None:
    """Masks and weights have the same bits."""
    example: dict[str, Any] = runpy.run_path(str(EXAMPLE), run_name="embedding")
    rng = np.random.default_rng(5)
    text = np.lib.stride_tricks.sliding_window_view(rng.integers(0, 7, 3000), example["CONTEXT"] + 1)
    shapes = {"hidden": (example["CONTEXT"] * 7, 12), "output": (12, 7)}
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    params = {name: weight.copy() for name, weight in weights.items()}
    steps = 120
    topology = example["train"](weights, sparsity, text, steps)

    optimizer = SGD(params, example["LEARNING_RATE"], example["MOMENTUM"])
    schedule = UpdateSchedule.for_training(steps, every=25)
    recipe = RigL(sparsity, schedule=schedule, drop_fraction=Cosine(0.3), distribution=ErdosRenyi(), seed=0)
    layers = [Layer(name, shape, in_axes=(0,), out_axes=(1,)) for name, shape in shapes.items()]
    sparse = sparsify(params, optimizer, recipe, layers=layers)
    initial = sparse.masks
    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = text[rng.integers(len(text), size=example["BATCH"])]
        optimizer.step(example["differentiate"](params, batch))

    for name in shapes:
        np.testing.assert_array_equal(topology.masks[name], sparse.masks[name])
        np.testing.assert_array_equal(weights[name], params[name])
        assert not weights[name][~topology.masks[name]].any()
        assert np.array_equal(topology.masks[name], initial[name]) == (sparsity == 0), "the topology has moved"
