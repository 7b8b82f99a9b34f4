"""The plain values of reports, made from masks of this framework."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from rigl_backends.tf import sparsify
from rigl_core import History, Lottery, Static, Ticket, Trained
from rigl_core.inspect import density, ever_active, scalars, units
from tests.tf.helpers import make_gradients, make_model, rigl


def test_what_is_logged_of_a_training() -> None:
    model = make_model()
    optimizer = sparsify(keras.optimizers.SGD(0.1), rigl(), model=model)
    history = History()
    history.add(optimizer.step, optimizer.masks)
    before = optimizer.masks
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(make_gradients(variables, 0), variables, strict=True))
    logged = scalars(optimizer.masks, before, ever_active(before, optimizer.masks))
    new = {name: int((mask & ~before[name]).sum()) for name, mask in optimizer.masks.items()}
    table = optimizer.table
    assert all(new.values())
    assert logged["moved"] == sum(new.values()) / table.total_active
    for name, active in zip(new, table.active, strict=True):
        assert logged[f"moved/{name}"] == new[name] / active
    assert logged["R_s"] == (table.total_active + sum(new.values())) / table.total_size
    assert logged["density"] == density(optimizer.masks) == table.total_active / table.total_size
    assert all(type(value) is float for value in logged.values())
    snapshot = history.add(optimizer.step, optimizer.masks)
    assert (snapshot.step, snapshot.moved, snapshot.r_s) == (1, logged["moved"], logged["R_s"])


def test_units_of_convolutions_and_recurrent_layers() -> None:
    model = keras.Sequential(
        [keras.Input((6, 6, 4)), keras.layers.Conv2D(6, 3), keras.layers.Reshape((16, 6)), keras.layers.GRU(7)]
    )
    optimizer = sparsify(keras.optimizers.SGD(0.1), Static(0.0), model=model)
    masks = optimizer.masks
    convolution, inputs, _ = masks
    masks[convolution][..., 2] = False
    masks[inputs][:, 4] = False
    found = units(optimizer.plan.layers, masks)
    assert [(each.outputs, each.empty) for each in found.values()] == [(6, 1), (21, 1), (21, 0)]
    assert found[convolution].most_in == 1 / 5


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_variables_as_they_are_become_scores_of_a_lottery(dtype: str) -> None:
    variables = {v.path: v for v in make_model(dtype).trainable_variables if v.path.endswith("kernel")}
    weights = {name: variable.value for name, variable in variables.items()}
    rng = np.random.default_rng(0)
    masks = {name: rng.random(tuple(weight.shape)) < 0.5 for name, weight in weights.items()}
    ticket = Lottery(0.5, rounds=1).next(Ticket(), Trained(weights, masks, "initial"))
    assert ticket is not None
    assert ticket.scores is not None
    for name, weight in weights.items():
        expected = np.where(masks[name], abs(weight.numpy().astype(np.float64)), -1)
        np.testing.assert_array_equal(ticket.scores[name].astype(np.float64), expected)
