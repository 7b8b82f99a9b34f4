"""The NumPy adapter trains on real data, and refuses what it cannot do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits

from rigl_backends.numpy import SGD, Adam, Optimizer, sparsify
from rigl_core import ErdosRenyi, Layer, RigL, Static, UpdateSchedule, specs
from rigl_core.testing.checks import checks

Arrays = dict[str, npt.NDArray[Any]]
SCHEDULE = UpdateSchedule(end=450, every=50)


def make_params(widths: tuple[int, ...] = (64, 100, 10), seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    params: Arrays = {}
    for i in range(1, len(widths)):
        scale = np.sqrt(2 / widths[i - 1])
        params[f"fc{i}.weight"] = rng.normal(0, scale, (widths[i], widths[i - 1])).astype(np.float32)
        params[f"fc{i}.bias"] = np.zeros(widths[i], np.float32)
    return params


def forward(params: Arrays, x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    hidden = np.maximum(x @ params["fc1.weight"].T + params["fc1.bias"], 0)
    return hidden, hidden @ params["fc2.weight"].T + params["fc2.bias"]


def gradients(params: Arrays, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Arrays:
    hidden, logits = forward(params, x)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    delta = (odds / odds.sum(1, keepdims=True) - np.eye(10, dtype=np.float32)[y]) / np.float32(len(y))
    back = (delta @ params["fc2.weight"]) * (hidden > 0)
    return {
        "fc1.weight": back.T @ x,
        "fc1.bias": back.sum(0),
        "fc2.weight": delta.T @ hidden,
        "fc2.bias": delta.sum(0),
    }


def accuracy_after_training(make_optimizer: Any, recipe: Any) -> tuple[float, Arrays]:
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    params = make_params()
    optimizer: Optimizer = make_optimizer(params)
    sparsify(params, optimizer, recipe, layers=specs.mlp(64, 100, 10))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    train, test = order[:1400], order[1400:]
    for _ in range(600):
        batch = rng.choice(train, 64)
        optimizer.step(gradients(params, images[batch], labels[batch]))
    return float((forward(params, images[test])[1].argmax(1) == labels[test]).mean()), params


@pytest.mark.parametrize(
    "make_optimizer",
    [lambda p: SGD(p, 0.1, 0.9), lambda p: SGD(p, 0.1, 0.9, nesterov=True), lambda p: Adam(p, 5e-3)],
    ids=["momentum", "nesterov", "adam"],
)
def test_rigl_trains_digits_and_beats_a_static_topology(make_optimizer: Any) -> None:
    rigl, params = accuracy_after_training(make_optimizer, RigL(0.97, schedule=SCHEDULE))
    static, _ = accuracy_after_training(make_optimizer, Static(0.97))
    active = sum(int(np.count_nonzero(params[f"fc{i}.weight"])) for i in (1, 2))
    assert active <= 222  # round(0.03 * 7400)
    assert rigl > 0.9
    assert rigl > static


def test_layers_are_arrays_with_two_or_more_axes() -> None:
    params = {**make_params(), "embedding": np.ones((3, 4), np.float32), "scale": np.ones(7, np.float32)}
    sparse = sparsify(params, SGD(params), Static(0.5), include=["scale"], exclude=["embed*"])
    assert list(sparse.masks) == ["fc1.weight", "fc2.weight", "scale"]
    assert sparse.table.total_active == sum(sparse.plan.active)


def test_remove_gives_the_optimizer_back() -> None:
    params = make_params()
    optimizer = SGD(params, 0.1)
    sparse = sparsify(params, optimizer, Static(0.9))
    inactive = ~sparse.masks["fc1.weight"]
    assert not params["fc1.weight"][inactive].any()
    sparse.remove()
    optimizer.step({name: np.ones_like(param) for name, param in params.items()})
    assert params["fc1.weight"][inactive].all()
    sparsify(params, optimizer, Static(0.9))


@checks("P3")
def test_what_cannot_be_done_is_refused_and_changes_nothing() -> None:
    params = make_params()
    before = {name: param.copy() for name, param in params.items()}
    optimizer = SGD(params)
    others = SGD(make_params())
    part = SGD({name: param for name, param in params.items() if name != "fc1.weight"})
    unknown_axes = Static(0.5, distribution=ErdosRenyi())
    cases: list[tuple[Any, str]] = [
        (lambda: sparsify(params, optimizer, Static(0.5), include=["nope"]), "include holds the pattern 'nope'"),
        (lambda: sparsify(params, optimizer, Static(0.5), exclude=["nope"]), "exclude holds the pattern 'nope'"),
        (lambda: sparsify(params, optimizer, Static(0.5), exclude=["*"]), "layers is empty"),
        (lambda: sparsify(params, optimizer, unknown_axes), "in_axes of layer 'fc1.weight' is unknown"),
        (lambda: sparsify(params, optimizer, Static(0.5), layers=[Layer("x", (2, 2))]), "layers names 'x'"),
        (lambda: sparsify(params, others, Static(0.5)), "optimizer does not hold layer 'fc1.weight'"),
        (lambda: sparsify(params, part, Static(0.5)), "optimizer does not hold layer 'fc1.weight'"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    for name, param in params.items():
        np.testing.assert_array_equal(param, before[name])
    sparsify(params, optimizer, Static(0.5))
    with pytest.raises(ValueError, match="optimizer is already sparsified"):
        sparsify(params, optimizer, Static(0.5))


@checks("P3")
def test_a_changed_shape_is_refused_before_anything_moves() -> None:
    params = make_params()
    optimizer = SGD(params, 0.1)
    sparse = sparsify(params, optimizer, RigL(0.9, schedule=SCHEDULE))
    grads = {name: np.ones_like(param) for name, param in params.items()}
    grads["fc2.weight"] = np.ones((10, 99), np.float32)
    before = {name: param.copy() for name, param in params.items()}
    with pytest.raises(ValueError, match=r"layer 'fc2.weight' had the shape \(10, 100\).*gradient shape \(10, 99\)"):
        optimizer.step(grads)
    assert sparse.step == 0
    for name, param in params.items():
        np.testing.assert_array_equal(param, before[name])


@checks("P3")
def test_states_of_another_training_are_refused_and_change_nothing() -> None:
    params = make_params()
    sparse = sparsify(params, SGD(params), RigL(0.9, schedule=SCHEDULE))
    state, masks = sparse.state_dict(), sparse.masks
    full = {**masks, "fc1.weight": np.ones_like(masks["fc1.weight"])}
    cases: list[tuple[Any, str]] = [
        ({}, "state must be what state_dict"),
        ({**state, "format": 99}, "state has the format 99"),
        ({**state, "recipe": {**state["recipe"], "seed": 1}}, "saved under another recipe: seed was 1 and is 0"),
        ({**state, "step": -1}, "state holds the step -1"),
        ({**state, "masks": {"fc1.weight": masks["fc1.weight"]}}, r"they differ in \['fc2.weight'\]"),
        ({**state, "masks": {**masks, "fc1.weight": np.ones((2, 2), bool)}}, "must be bool, of shape"),
        ({**state, "masks": full}, "state has 6400 active weights in layer 'fc1.weight'"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            sparse.load_state_dict(wrong)
    assert sparse.step == 0
    for name, mask in sparse.masks.items():
        np.testing.assert_array_equal(mask, masks[name])


@checks("P3", "B1")
def test_one_array_under_two_names_is_one_layer() -> None:
    """Two masks of one array would leave their common connections alone."""
    shared = np.ones((6, 6), np.float32)
    params: Arrays = {"encoder": shared, "decoder": shared.T}
    with pytest.raises(ValueError, match=r"layers 'encoder' and 'decoder' are one tied parameter: name it once"):
        sparsify(params, SGD(params), Static(0.5))
    assert shared.all()
    sparse = sparsify(params, SGD(params), Static(0.5), exclude=["decoder"])
    assert sparse.masks["encoder"].sum() == np.count_nonzero(params["decoder"]) == 18
