"""Remedies against connections that pile up: growth compared within outputs, and a floor. On digits, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rigl_backends.numpy import Adam, sparsify
from rigl_core import GRADIENT_BY_INPUT, GRADIENT_BY_OUTPUT, Layer, RigL, Static, UpdateSchedule, make_plan
from rigl_core.arrays import numpy_namespace as xp
from rigl_core.inspect import Units, units
from rigl_core.parts.units import connections_of, grown_with_floor
from rigl_core.testing import floor_oracle

LAYERS = [Layer("hidden", (64, 100), (0,), (1,)), Layer("output", (100, 10), (0,), (1,))]
SCHEDULE = UpdateSchedule(end=225, every=15)


def units_after(**options: Any) -> Units:
    """The 100 hidden units after a training at 95 %."""
    images, labels = load_digits(return_X_y=True)
    x, y, rng = images[:600] / 16, np.eye(10)[labels[:600]], np.random.default_rng(0)
    w = {layer.name: rng.normal(0, 0.2, layer.shape) for layer in LAYERS}
    optimizer = Adam(w, 0.01)
    sparse = sparsify(w, optimizer, RigL(0.95, schedule=SCHEDULE, **options), layers=LAYERS)
    for _ in range(240):
        hidden = np.maximum(x @ w["hidden"], 0)
        powers = np.exp(hidden @ w["output"])
        errors = (powers / powers.sum(axis=1, keepdims=True) - y) / len(x)
        gradients = {"hidden": x.T @ (errors @ w["output"].T * (hidden > 0)), "output": hidden.T @ errors}
        optimizer.step(gradients)
    assert {name: int(mask.sum()) for name, mask in sparse.masks.items()} == {"hidden": 221, "output": 149}
    return units(LAYERS, sparse.masks)["hidden"]


def test_what_piles_up_and_what_helps() -> None:
    """A random topology leaves some 10 of these units without an input, RigL far more, and a floor none."""
    assert units(LAYERS, sparse_at_start())["hidden"].empty < 20
    piled = units_after()
    assert piled.empty > 30
    assert units_after(floor=1).empty == 0
    assert units_after(grow=GRADIENT_BY_OUTPUT).most_in < piled.most_in


def sparse_at_start() -> dict[str, Any]:
    w = {layer.name: np.ones(layer.shape) for layer in LAYERS}
    masks: dict[str, Any] = sparsify(w, Adam(w, 0.01), Static(0.95), layers=LAYERS).masks
    return masks


@pytest.mark.parametrize(
    ("options", "layer", "message"),
    [
        ({"floor": 1}, Layer("a", (8, 8)), "floor looks at each output of a layer, and those of layer 'a' are unknown"),
        ({"grow": GRADIENT_BY_OUTPUT}, Layer("a", (8, 8)), "grow='gradient_by_output' looks at each output"),
        (
            {"grow": GRADIENT_BY_INPUT},
            Layer("a", (8, 4, 3), (1,), (0,), groups=2),
            "looks at each input of a layer, and those of layer 'a' are shared by its 2 groups",
        ),
        (
            {"floor": 1},
            Layer("a", (3, 8, 8), (1,), (2,), stacked=(0,)),
            "floor is 1, and layer 'a' has 3 slices .* leave it out",
        ),
    ],
)
def test_layers_whose_units_cannot_be_told(options: Any, layer: Layer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(RigL(0.5, schedule=SCHEDULE, **options), [layer])


@pytest.mark.parametrize("seed", range(50))
def test_a_floor_comes_before_infinite_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer, floor = Layer("a", (4, 5), (1,), (0,)), int(rng.integers(1, 5))
    scores = rng.choice(np.array([0, 1, 2, np.inf], np.float32), layer.size)
    kept = rng.random(layer.size) < 0.3
    grow = int(rng.integers(0, layer.size - kept.sum() + 1))
    groups = connections_of("output", layer, "floor")
    grown = grown_with_floor(scores, grow, floor, groups, kept=kept, xp=xp)
    expected = floor_oracle.floor_grown(scores.tolist(), set(np.flatnonzero(kept)), grow, floor, layer)
    assert set(np.flatnonzero(grown)) == expected
