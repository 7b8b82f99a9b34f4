"""Truly sparse layers in NumPy: a whole training, and what users do wrong."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rigl_backends.numpy import SGD, Adam, Described, SparseTraining, sparsify
from rigl_core import MAGNITUDE, SNFS, Constant, RigL, Static, Uniform, UpdateSchedule
from rigl_core.adapter import Layer
from rigl_core.testing.checks import checks

Array = npt.NDArray[np.float32]
LAYERS = [Layer("fc1", (20, 30), (0,), (1,)), Layer("fc2", (30, 10), (0,), (1,))]
SCHEDULE = UpdateSchedule(end=20, every=3)
RECIPE = RigL(0.8, schedule=SCHEDULE, drop_fraction=Constant(0.4), distribution=Uniform(first_dense=False))
ACTIVE = {"*": "active"}


def make(storage: Any, recipe: Any = RECIPE, **options: Any) -> tuple[dict[str, Array], Adam, SparseTraining]:
    rng = np.random.default_rng(0)
    params = {layer.name: rng.normal(size=layer.shape).astype(np.float32) / 4 for layer in LAYERS}
    params["bias"] = np.zeros(30, np.float32)
    optimizer = Adam(params, 0.01)
    return params, optimizer, sparsify(params, optimizer, recipe, layers=LAYERS, storage=storage, **options)


def data(step: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(step)
    x = rng.normal(size=(2, 8, 20)).astype(np.float32)
    return x, np.tanh(x[..., :10] * x[..., 10:])


def train(params: dict[str, Array], optimizer: Adam, sparse: SparseTraining, steps: range) -> list[float]:
    """A small regression, the same for both storages; a sparse layer multiplies on its own."""
    losses = []
    for step in steps:
        x, target = data(step)
        grads: dict[str, Any] = {}
        if sparse.linear:
            first, second = sparse.linear["fc1"], sparse.linear["fc2"]
            hidden = np.maximum(first(x) + params["bias"], 0)
            error = second(hidden) - target
            dhidden, grads["fc2"] = second.backward(hidden, error)
            assert dhidden is not None
            dhidden = dhidden * (hidden > 0)
            grads["fc1"] = first.backward(x, dhidden, needs_inputs=False)[1]
        else:
            hidden = np.maximum(x @ params["fc1"] + params["bias"], 0)
            error = hidden @ params["fc2"] - target
            dhidden = (error @ params["fc2"].T) * (hidden > 0)
            grads["fc2"] = np.einsum("abi,abo->io", hidden, error)
            grads["fc1"] = np.einsum("abi,abo->io", x, dhidden)
        grads["bias"] = dhidden.sum((0, 1))
        optimizer.step(grads)
        losses.append(float((error**2).mean()))
    return losses


@checks("A1")
def test_a_training_is_that_with_masks() -> None:
    """Seven updates of two layers, from products: equal masks, and weights up to rounding."""
    active, masked = make(ACTIVE), make("masks")
    np.testing.assert_allclose(train(*active, range(25)), train(*masked, range(25)), rtol=1e-4)
    for name, mask in masked[2].masks.items():
        np.testing.assert_array_equal(active[2].masks[name], mask)
        np.testing.assert_allclose(active[2].linear[name].dense(), masked[0][name], atol=1e-5)
    assert str(active[2].table) == str(masked[2].table)


@checks("A1", "V1")
def test_arrays_are_of_active_weights_alone() -> None:
    params, optimizer, sparse = make(ACTIVE)
    train(params, optimizer, sparse, range(4))
    for name in ("fc1", "fc2"):
        held = [params[name], optimizer.state[name]["mean"], optimizer.state[name]["square"]]
        assert {array.shape for array in held} == {(sparse.linear[name].index.size,)}


@checks("G2", "A2")
def test_micro_batches_add() -> None:
    """Two halves of a batch, whose gradients add, are one batch."""
    linear, (x, target) = make(ACTIVE)[2].linear["fc1"], data(0)
    dy = np.repeat(target, 3, axis=-1)
    whole = linear.backward(x.reshape(-1, 20), dy.reshape(-1, 30))[1]
    parts = linear.backward(x[0], dy[0])[1] + linear.backward(x[1], dy[1])[1]
    for (start, one), (other, two) in zip(whole.blocks(), parts.blocks(), strict=True):
        assert start == other
        np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose((parts * 0.5).active, whole.active / 2, rtol=1e-5)


@checks("P2")
def test_resume() -> None:
    """Weights, state and topology of the 10th step, in new objects: the same bits as a training that went on."""
    params, optimizer, sparse = make(ACTIVE)
    train(params, optimizer, sparse, range(10))
    weights = {name: array.copy() for name, array in params.items()}
    moments = {
        name: {key: np.copy(value) if np.ndim(value) else value for key, value in state.items()}
        for name, state in optimizer.state.items()
    }
    state = sparse.state_dict()
    train(params, optimizer, sparse, range(10, 20))
    again, its, resumed = make(ACTIVE)
    resumed.load_state_dict(state)
    again.update(weights)
    its.state = moments
    train(again, its, resumed, range(10, 20))
    for name, array in params.items():
        np.testing.assert_array_equal(array, again[name])


@checks("P2")
def test_a_state_changes_its_storage() -> None:
    """A training with masks goes on with active weights, and the other way round."""
    params, optimizer, sparse = make("masks")
    train(params, optimizer, sparse, range(10))
    again, its, resumed = make(ACTIVE)
    resumed.load_state_dict(sparse.state_dict())
    for name, linear in resumed.linear.items():
        again[name] = linear.index.values(params[name])
        its.state[name] = {
            key: linear.index.values(value) if np.ndim(value) else value for key, value in optimizer.state[name].items()
        }
    again["bias"][...] = params["bias"]
    its.state["bias"] = {key: np.copy(value) for key, value in optimizer.state["bias"].items()}
    its.state["bias"]["step"] = int(its.state["bias"]["step"])
    np.testing.assert_allclose(
        train(params, optimizer, sparse, range(10, 20)), train(again, its, resumed, range(10, 20)), rtol=1e-4
    )
    for name, mask in sparse.masks.items():
        np.testing.assert_array_equal(resumed.masks[name], mask)


@checks("P3", "A3")
def test_what_is_refused_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    params = {layer.name: rng.normal(size=layer.shape).astype(np.float32) for layer in LAYERS}
    before = {name: array.copy() for name, array in params.items()}
    optimizer = SGD(params, 0.1)
    for options in (
        {"recipe": SNFS(0.8, schedule=SCHEDULE), "storage": ACTIVE},
        {"recipe": RECIPE, "storage": "dense"},
        {"recipe": RECIPE, "storage": "active"},  # both layers are too small
    ):
        with pytest.raises(ValueError, match="storage"):
            sparsify(params, optimizer, options["recipe"], layers=LAYERS, storage=options["storage"])  # type: ignore[arg-type]
    for name, array in params.items():
        np.testing.assert_array_equal(array, before[name])


@checks("P3")
def test_mistakes_are_named() -> None:
    params, optimizer, sparse = make(ACTIVE)
    linear, (x, target) = sparse.linear["fc1"], data(0)
    dy = np.repeat(target, 3, axis=-1)
    with pytest.raises(TypeError, match="x is float64: the kernels of sparse layers multiply float32"):
        linear(x.astype(np.float64))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x has shape \(2, 8, 19\): layer 'fc1' has 20 features"):
        linear(x[..., :19])
    with pytest.raises(ValueError, match="dy has 8 samples, and x 16"):
        linear.backward(x, dy[:1])
    gradient = linear.backward(x, dy)[1]
    with pytest.raises(ValueError, match="the gradient of 'fc1' holds active weights alone"):
        optimizer.step({"fc1": gradient.active})
    with pytest.raises(ValueError, match=r"layer 'fc1'"):
        optimizer.step({"fc1": gradient.active[:-1]})
    params["fc1"] = params["fc1"][:-1]
    with pytest.raises(ValueError, match="restore weights and topology together"):
        linear(x)


def test_a_described_layer_is_never_dense() -> None:
    """It takes memory for its active weights, whose values are drawn; it trains; a dense array would take 64 MB."""
    side, drawn = 4096, list[int]()

    def draw(count: int) -> npt.ArrayLike:
        drawn.append(count)
        return np.linspace(-0.1, 0.1, count)

    tracemalloc.start()
    params: dict[str, Array] = {"fc": Described((side, side), draw)}
    optimizer = Adam(params)
    sparse = sparsify(params, optimizer, RigL(0.99, schedule=SCHEDULE), axes={"fc": ((0,), (1,))}, storage=ACTIVE)
    x = np.ones((4, side), np.float32)
    for _ in range(4):
        optimizer.step({"fc": sparse.linear["fc"].backward(x, x)[1]})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn == [params["fc"].size] == [round(0.01 * side * side)]
    assert type(params["fc"]) is np.ndarray
    assert peak < 20_000_000


def test_described_layers_are_refused_where_they_would_be_made() -> None:
    params: dict[str, Array] = {"fc": Described((30, 20), np.zeros)}
    with pytest.raises(ValueError, match=r"params has \['fc'\] as described arrays.*storage='active'"):
        sparsify(params, SGD(params), RECIPE, axes={"fc": ((0,), (1,))})
    with pytest.raises(ValueError, match=r"'fc' was never made.*random connections"):
        sparsify(
            params, SGD(params), Static(0.8, initial=MAGNITUDE), axes={"fc": ((0,), (1,))}, storage=ACTIVE, scores=None
        )
    params["fc"] = Described((30, 20), lambda count: np.zeros(count - 1))
    with pytest.raises(ValueError, match=r"draw gave values of shape \(119,\): it must give 120"):
        sparsify(params, SGD(params), RECIPE, axes={"fc": ((0,), (1,))}, storage=ACTIVE)
    with pytest.raises(TypeError, match="draw is 3"):
        Described((2, 2), 3)  # type: ignore[arg-type]
