"""An optimizer of the user's own: a copy of it shows what it gives a new weight, and it stays as it is."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rigl_backends.numpy import Optimizer, sparsify
from rigl_core import Constant, Layer, RigL, UpdateSchedule
from rigl_core.testing.checks import checks

Array = npt.NDArray[Any]
LAYERS = [Layer("fc.weight", (6, 8), in_axes=(1,), out_axes=(0,))]
RECIPE = RigL(0.5, schedule=UpdateSchedule(end=9, every=2), drop_fraction=Constant(0.5))


class Counting(Optimizer):
    """Adagrad, which counts its steps in a dict of its own, and so in what a shallow copy shares."""

    def __init__(self, params: dict[str, Array]) -> None:
        super().__init__(params, 0.1, 0.0)
        self.steps: Counter[tuple[int, ...]] = Counter()

    def _step_one(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
        self.steps[param.shape] += 1
        total = state.setdefault("sum", np.full_like(param, 0.1))
        total += grad * grad
        param -= self.lr * grad / np.sqrt(total)


class Failing(Counting):
    """Its steps need all parameters."""

    def _step_one(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
        param -= self.lr * grad * self.params["fc.bias"].size


def make_params() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {"fc.weight": rng.normal(size=(6, 8)), "fc.bias": rng.normal(size=6)}


@checks("V1", "V3")
def test_a_new_weight_gets_what_the_optimizer_gives_it() -> None:
    params = make_params()
    optimizer = Counting(params)
    sparse = sparsify(params, optimizer, RECIPE, layers=LAYERS)
    assert not optimizer.steps
    rng = np.random.default_rng(1)
    for step in range(9):
        before = sparse.masks["fc.weight"]
        optimizer.step({name: rng.normal(size=param.shape) for name, param in params.items()})
        mask, total = sparse.masks["fc.weight"], optimizer.state["fc.weight"].get("sum")
        if total is not None:
            fresh = ~mask | (mask & ~before)
            assert (total[fresh] == 0.1).all(), step
            assert (total[mask & before] > 0.1).all(), step
    assert optimizer.steps[(6, 8)] == optimizer.steps[(6,)] == 9 - 5  # five updates take the place of steps


@checks("P3")
def test_an_optimizer_whose_copy_fails_is_refused() -> None:
    params = make_params()
    optimizer, before = Failing(params), copy.deepcopy(params)
    with pytest.raises(ValueError, match=r"optimizer Failing cannot show what it gives a new weight of layer 'fc\.wei"):
        sparsify(params, optimizer, RECIPE, layers=LAYERS)
    assert all((params[name] == before[name]).all() for name in params)
    optimizer.step(params)
