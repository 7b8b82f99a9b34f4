"""Stacks and fused gates in Keras: of a model, of variables, in ``fit`` and in a saved configuration."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

from rigl_backends.tf import SparseOptimizer, describe, plan, sparsify
from rigl_core import Constant, Layer, RigL, UpdateSchedule
from rigl_core.testing.checks import checks

RECIPE = RigL(0.7, schedule=UpdateSchedule(end=9, every=2), drop_fraction=Constant(0.5))
SLICES: dict[str, Any] = {"stacked": {"heads/*": 1}, "fused": {"lstm/*kernel": 4}}
LAYERS = [
    Layer("lstm/lstm_cell/kernel", (4, 24), (0,), (1,), fused=(1, 4)),
    Layer("lstm/lstm_cell/recurrent_kernel", (6, 24), (0,), (1,), fused=(1, 4)),
    Layer("heads/kernel", (6, 3, 8), (0,), (2,), stacked=(1,)),
]


def make_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((5, 4))
    y = kl.RepeatVector(3)(kl.LSTM(6, name="lstm")(x))
    return keras.Model(x, kl.EinsumDense("bsi,iso->bso", (3, 8), name="heads")(y), name="net")


def slices_of(mask: Any, layer: Layer) -> list[int]:
    array = np.asarray(mask)
    pieces = np.split(array, 4, axis=1) if layer.fused else np.moveaxis(array, 1, 0)
    return [int(piece.sum()) for piece in pieces]


@checks("B12", "T7")
@pytest.mark.parametrize("known", [True, False])
def test_slices_keep_equal_numbers(known: bool) -> None:
    """In ``fit``, with the model or with its variables alone, and after the optimizer is made again."""
    model, options = make_model(), dict(SLICES)
    if not known:  # paths do not tell the axes of an EinsumDense
        options |= {"include": ["heads/kernel"], "axes": {"heads/kernel": ((0,), (2,))}}
    assert plan(model, RECIPE, **SLICES).layers == tuple(LAYERS)
    optimizer = sparsify(keras.optimizers.Adam(1e-2), RECIPE, **options, **({"model": model} if known else {}))
    again = SparseOptimizer.from_config(optimizer.get_config())
    for own in (optimizer, again):
        own.build(model.trainable_variables)
        assert own.plan.layers == tuple(LAYERS)
    first = {name: np.asarray(mask) for name, mask in optimizer.masks.items()}
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).normal(size=(32, 5, 4))
    model.fit(x, np.ones((32, 3, 8)), batch_size=8, verbose=0)
    for layer, active in zip(optimizer.plan.layers, optimizer.plan.active, strict=True):
        mask = np.asarray(optimizer.masks[layer.name])
        assert slices_of(mask, layer) == [active // layer.slices] * layer.slices, layer.name
        assert (mask != first[layer.name]).any()


def test_describe_knows_the_slices() -> None:
    network = describe(make_model(), np.ones((2, 5, 4), np.float32), examples=2, **SLICES)
    assert network.layers == tuple(LAYERS)
    assert network.positions["heads/kernel"] == 1
