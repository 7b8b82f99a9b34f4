"""The examples for the JAX libraries; the tests run them as a user does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "jax_libraries"
MLP = [64 * 128, 128 * 64, 64 * 10]
CONVNET = [3 * 3 * 32, 3 * 3 * 32 * 64, 1024 * 64, 64 * 10]


def train(file: str) -> tuple[float, list[int], list[int]]:
    """The test accuracy, and the numbers of active weights and of zeros, each for every layer and for all layers."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    first, _, *rows = result.stdout.splitlines()
    counts = [[int(number.replace(",", "")) for number in row.split()[-2:]] for row in rows]
    return float(re.fullmatch(r"test accuracy (\d\.\d+)", first)[1]), *map(list, zip(*counts, strict=True))  # type: ignore[index, return-value]


@pytest.mark.parametrize(("file", "sizes"), [("plain_dict.py", MLP), ("flax_nnx.py", MLP)])
def test_multilayer_perceptrons(file: str, sizes: list[int]) -> None:
    accuracy, active, zeros = train(file)
    assert accuracy > 0.93
    assert [a + z for a, z in zip(active, zeros, strict=True)] == [*sizes, sum(sizes)]
    assert active[-1] == sum(active[:-1]) == round(sum(sizes) / 10)


def test_convolutional_networks_get_the_same_counts_in_either_layout() -> None:
    (linen, linen_active, linen_zeros), (equinox, *counts) = train("flax_linen.py"), train("with_equinox.py")
    assert min(linen, equinox) > 0.93
    assert [a + z for a, z in zip(linen_active, linen_zeros, strict=True)] == [*CONVNET, sum(CONVNET)]
    assert linen_active[-1] == sum(linen_active[:-1]) == round(sum(CONVNET) / 10)
    assert counts == [linen_active, linen_zeros]


def test_every_example_is_run() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == {
        "digits.py",
        "plain_dict.py",
        "flax_nnx.py",
        "flax_linen.py",
        "with_equinox.py",
    }
