"""One topology through all four frameworks: found in one, trained on in the next."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import numpy.typing as npt
import optax
import pytest
import tensorflow as tf
import torch
from torch import nn

import rigl_backends.jax
import rigl_backends.numpy
import rigl_backends.tf
import rigl_backends.torch
from rigl_core import Constant, Layer, Recipe, RigL, SparsityWarning, Static, UpdateSchedule
from rigl_core.storage import Topology, load, save
from rigl_core.testing.checks import checks

STEPS = 3
MOVING = RigL(0.6, schedule=UpdateSchedule(end=90, every=2, begin=1), drop_fraction=Constant(0.3))
LAYERS = {"conv1": 12, "conv2": 14, "fc": 10}
"""The names of the layers, and their outputs."""
IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
LABELS = np.arange(4)
Masks = dict[str, npt.NDArray[np.bool_]]


@pytest.fixture(autouse=True)
def _small_layers() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsityWarning)
        yield


def in_torch(masks: Any) -> Masks:
    """The masks by short names, each as PyTorch stores it."""
    found = {}
    for (layer, outputs), mask in zip(LAYERS.items(), masks.values(), strict=True):
        array = np.asarray(mask)
        found[layer] = array if len(array) == outputs else array.transpose(-1, -2, *range(array.ndim - 2))
    return found


def assert_same(one: Masks, other: Masks) -> None:
    for layer in LAYERS:
        np.testing.assert_array_equal(one[layer], other[layer], strict=True, err_msg=layer)


@jax.jit
@jax.grad
def gradients_in_jax(params: Any) -> jax.Array:
    own, numbers = params["params"], ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(IMAGES, own["conv1"]["kernel"], (2, 2), "VALID", dimension_numbers=numbers)
    x = jax.lax.conv_general_dilated(
        jax.nn.relu(x), own["conv2"]["kernel"], (1, 1), "VALID", dimension_numbers=numbers, feature_group_count=2
    )
    logits = jax.nn.relu(x).mean((1, 2)) @ own["fc"]["kernel"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(LABELS)).mean()


def train_in_jax(recipe: Recipe, initial: Any = None) -> tuple[Masks, Topology]:
    shapes = {"conv1": (3, 3, 3, 12), "conv2": (3, 2, 6, 14), "fc": (14, 10)}
    drawn = np.random.default_rng(1)
    params: Any = {name: {"kernel": jnp.asarray(drawn.normal(size=shape) / 4)} for name, shape in shapes.items()}
    params = {"params": jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)}

    tx = rigl_backends.jax.sparsify(optax.adam(1e-2), recipe, initial=initial)
    state = tx.init(params)
    params = rigl_backends.jax.apply_masks(params, state)
    begun = in_torch(rigl_backends.jax.masks(state, params))
    update = jax.jit(tx.update)
    for _ in range(STEPS):
        updates, state = update(gradients_in_jax(params), state, params)
        params = optax.apply_updates(params, updates)
    return begun, rigl_backends.jax.topology(tx, state, params)


def train_in_torch(recipe: Recipe, initial: Any) -> tuple[Masks, Topology]:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 12, 3, stride=2, bias=False))
    model.add_module("conv2", nn.Conv2d(12, 14, (3, 2), groups=2, bias=False))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(14, 10, bias=False))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparse = rigl_backends.torch.sparsify(model, optimizer, recipe, initial=initial)
    begun = in_torch(sparse.masks)
    for _ in range(STEPS):
        optimizer.zero_grad()
        logits = model(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()))
        nn.functional.cross_entropy(logits, torch.from_numpy(LABELS)).backward()
        optimizer.step()
    return begun, Topology.of(sparse.plan, sparse.masks, sparse.step)


def train_in_tf(recipe: Recipe, initial: Any) -> tuple[Masks, Topology]:
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(12, 3, strides=2, activation="relu", use_bias=False, name="conv1"),
        keras.layers.Conv2D(14, (3, 2), groups=2, use_bias=False, name="conv2"),
        *(keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, use_bias=False, name="fc")),
    ]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers], name="net")
    optimizer = rigl_backends.tf.sparsify(keras.optimizers.Adam(1e-2), recipe, model=model, initial=initial)
    begun = in_torch(optimizer.masks)

    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(LABELS, model(IMAGES), from_logits=True)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return begun, Topology.of(optimizer.plan, optimizer.masks, optimizer.step)


def train_in_numpy(recipe: Recipe, initial: Any) -> tuple[Masks, Topology]:
    """With random gradients: NumPy does not differentiate."""
    rng = np.random.default_rng(2)
    shapes = {"conv1.weight": (12, 3, 3, 3), "conv2.weight": (14, 6, 3, 2), "fc.weight": (10, 14)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    layers = [Layer(name, shape, (1,), (0,)) for name, shape in shapes.items()]
    optimizer = rigl_backends.numpy.Adam(params, 1e-2)
    sparse = rigl_backends.numpy.sparsify(params, optimizer, recipe, layers=layers, initial=initial)
    begun = in_torch(sparse.masks)
    for _ in range(STEPS):
        optimizer.step({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    return begun, Topology.of(sparse.plan, sparse.masks, sparse.step)


def renamed(topology: Topology, pattern: str) -> Topology:
    return topology.renamed({own.name: pattern.format(name) for own, name in zip(topology.layers, LAYERS, strict=True)})


@checks("P6", "N3")
def test_through_all_four_frameworks(tmp_path: Path) -> None:
    """Equal masks in each after the file, which then move; and in the last one a training in which they stay."""
    path = tmp_path / "topology.rigl"
    _, found = train_in_jax(MOVING)
    for train, names, recipe in (
        (train_in_torch, "{}.weight", MOVING),
        (train_in_tf, "net/{}/kernel", RigL(schedule=MOVING.schedule)),
        (train_in_numpy, "{}.weight", MOVING),
        (train_in_jax, "params/{}/kernel", Static()),
    ):
        save(path, renamed(found, names))
        before = in_torch(load(path).masks)
        begun, found = train(recipe, path)
        assert_same(begun, before)
        after = in_torch(found.masks)
        assert {layer: mask.sum() for layer, mask in after.items()} == {layer: before[layer].sum() for layer in LAYERS}
        moved = any((after[layer] != before[layer]).any() for layer in LAYERS)
        assert moved == (recipe.schedule is not None)
        assert found.step == STEPS


@checks("N3", "A1")
@pytest.mark.parametrize("recipe", [Static(), RigL(schedule=UpdateSchedule(end=9, every=1))])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_active_weights_begin_with_given_masks(recipe: Recipe, device: str, tmp_path: Path) -> None:
    """Also those of layers that are never dense."""
    mask = np.random.default_rng(0).random((8, 16)) < 0.2
    save(tmp_path / "x", Topology((Layer("kernel", (8, 16), (0,), (1,)),), {"kernel": mask}))
    initial = load(tmp_path / "x").renamed({"kernel": "0.weight"})
    with torch.device(device):
        model = nn.Sequential(nn.Linear(8, 16))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparse = rigl_backends.torch.sparsify(model, optimizer, recipe, initial=initial, storage={"0.weight": "active"})
    np.testing.assert_array_equal(sparse.masks["0.weight"].numpy(), mask.T)
    assert model[0].weight.shape == (mask.sum(),)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(5, 8, generator=torch.Generator().manual_seed(0))).square().sum().backward()
        optimizer.step()
    after = sparse.masks["0.weight"].numpy()
    assert after.sum() == mask.sum()
    assert (after == mask.T).all() == (recipe.schedule is None)


@checks("P3", "N3")
def test_mistakes_change_nothing(tmp_path: Path) -> None:
    model = nn.Linear(6, 4)
    weight, optimizer = model.weight.detach().clone(), torch.optim.SGD(model.parameters(), 0.1)
    for initial, message in (
        (tmp_path / "missing", "No such file"),
        ({"weight": np.ones((6, 4), bool)}, "initial does not fit the model: masks has a bool array of shape"),
        (Topology((Layer("kernel", (6, 4), (0,), (1,)),), {"kernel": np.ones((6, 4), bool)}), "Give names, such as"),
    ):
        with pytest.raises((OSError, ValueError), match=message):
            rigl_backends.torch.sparsify(model, optimizer, Static(), initial=initial)
    assert torch.equal(model.weight, weight)
    tx = rigl_backends.jax.sparsify(optax.sgd(0.1), Static(), initial={"w": np.ones((6, 4), bool)})
    with pytest.raises(ValueError, match="initial does not fit the model: masks has a bool array"):
        tx.init({"w": jnp.ones((4, 6))})
    with pytest.raises(TypeError, match="initial is a int: give a Topology"):
        rigl_backends.jax.sparsify(optax.sgd(0.1), Static(), initial=3)  # type: ignore[arg-type]
