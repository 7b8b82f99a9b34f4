"""The plain values of reports, made from masks of this framework."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from rigl_backends.jax import masks, plan, sparsify, step, table
from rigl_core import History, Lottery, Static, Ticket, Trained
from rigl_core.inspect import density, ever_active, scalars, units
from tests.jax.helpers import RECIPE, by_name, make_gradients, make_params, make_step, start


def test_what_is_logged_of_a_training() -> None:
    tx = sparsify(optax.sgd(0.1), RECIPE)
    params, opt_state = start(tx, make_params())
    history = History()
    history.add(step(opt_state), masks(opt_state, params))
    before = masks(opt_state, params)
    params, opt_state = make_step(tx)(params, opt_state, make_gradients(params, 0))
    after, shown = masks(opt_state, params), table(opt_state, params)
    logged = scalars(after, before, ever_active(before, after))
    new = {name: int((mask & ~before[name]).sum()) for name, mask in after.items()}
    assert all(new.values())
    assert logged["moved"] == sum(new.values()) / shown.total_active
    for name, active in zip(after, shown.active, strict=True):
        assert logged[f"moved/{name}"] == new[name] / active
    assert logged["R_s"] == (shown.total_active + sum(new.values())) / shown.total_size
    assert logged["density"] == density(after) == shown.total_active / shown.total_size
    assert all(type(value) is float for value in logged.values())
    snapshot = history.add(step(opt_state), after)
    assert (snapshot.step, snapshot.moved, snapshot.r_s) == (1, logged["moved"], logged["R_s"])


def test_units_of_convolutions_and_recurrent_layers() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.Conv(6, (3, 3))(x)
            return nn.RNN(nn.GRUCell(7))(x.reshape(x.shape[0], -1, 6))

    params = Net().init(jax.random.key(0), jnp.ones((1, 4, 4, 3)))["params"]
    tx = sparsify(optax.sgd(0.1), Static(0.5))
    full = masks(tx.init(params), params)
    full["Conv_0/kernel"] = full["Conv_0/kernel"].at[..., 2].set(False)
    found = units(plan(params, Static(0.5)).layers, full)
    assert (found["Conv_0/kernel"].outputs, found["Conv_0/kernel"].empty) == (6, 1)
    assert {name: each.outputs for name, each in found.items() if name != "Conv_0/kernel"} == {
        name: 7 for name in full if name != "Conv_0/kernel"
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_parameters_as_they_are_become_scores_of_a_lottery(dtype: Any) -> None:
    tx = sparsify(optax.sgd(0.1), RECIPE)
    params, opt_state = start(tx, make_params(dtype))
    own, weights = masks(opt_state, params), by_name(params)
    ticket = Lottery(0.5, rounds=1).next(Ticket(), Trained(weights, own, params))
    assert ticket is not None
    assert ticket.scores is not None
    for name, mask in own.items():
        expected = np.where(mask, abs(weights[name].astype(np.float64)), -1)
        np.testing.assert_array_equal(ticket.scores[name].astype(np.float64), expected)
