"""Whole trainings in flax linen, flax nnx, equinox and with a plain dict: the user's loop, and one more line."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState

from rigl_backends.jax import apply_masks, masks, sparsify, step, table
from rigl_core import RigL, UpdateSchedule
from tests.jax.helpers import by_name

STEPS = 60
RECIPE = RigL(0.8, schedule=UpdateSchedule.for_training(STEPS, every=5))
RNG = np.random.default_rng(0)
INPUTS = jnp.array(RNG.normal(size=(64, 12)), jnp.float32)
TARGETS = jnp.sin(INPUTS @ jnp.array(RNG.normal(size=(12, 3)), jnp.float32))

TX = sparsify(optax.adam(0.03), RECIPE)


def squared_error(outputs: jax.Array) -> jax.Array:
    return jnp.mean((outputs - TARGETS) ** 2)


def assert_trained(params: Any, opt_state: Any, losses: list[float]) -> None:
    assert losses[-1] < 0.8 * losses[0]
    assert int(step(opt_state)) == STEPS
    assert table(opt_state, params).total_active == round(0.2 * (12 * 16 + 16 * 3))
    for name, mask in masks(opt_state, params).items():
        assert not by_name(params)[name][~np.array(mask)].any()


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return linen.Dense(3)(linen.tanh(linen.Dense(16)(x)))


def linen_start() -> TrainState:
    model = Linen()
    state = TrainState.create(apply_fn=model.apply, params=model.init(jax.random.key(0), INPUTS), tx=TX)
    return state.replace(params=apply_masks(state.params, state.opt_state))


@jax.jit
def linen_step(state: TrainState) -> tuple[TrainState, jax.Array]:
    loss, gradients = jax.value_and_grad(lambda params: squared_error(state.apply_fn(params, INPUTS)))(state.params)
    return state.apply_gradients(grads=gradients), loss


def test_flax_linen_with_a_train_state_saved_as_bytes() -> None:
    state, losses = linen_start(), []
    for number in range(STEPS):
        if number == 23:
            state = flax.serialization.from_bytes(linen_start(), flax.serialization.to_bytes(state))
        state, loss = linen_step(state)
        losses.append(float(loss))
    assert_trained(state.params, state.opt_state, losses)
    whole = linen_start()
    for _ in range(STEPS):
        whole, _ = linen_step(whole)
    for name, weight in by_name(whole.params).items():
        np.testing.assert_array_equal(weight, by_name(state.params)[name])


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(12, 16, rngs=rngs)
        self.out = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.tanh(self.hidden(x)))


def test_flax_nnx_with_its_optimizer() -> None:
    model = Nnx(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)
    nnx.update(model, apply_masks(nnx.state(model, nnx.Param), optimizer.opt_state))

    @nnx.jit
    def descend(model: Nnx, optimizer: Any) -> jax.Array:
        loss, gradients = nnx.value_and_grad(lambda model: squared_error(model(INPUTS)))(model)
        optimizer.update(model, gradients)
        return loss

    losses = [float(descend(model, optimizer)) for _ in range(STEPS)]
    assert_trained(nnx.state(model, nnx.Param), optimizer.opt_state, losses)


def test_equinox() -> None:
    model = eqx.nn.MLP(12, 3, 16, 1, jax.nn.tanh, key=jax.random.key(0))
    opt_state = TX.init(eqx.filter(model, eqx.is_inexact_array))
    model = apply_masks(model, opt_state)

    @eqx.filter_jit
    def descend(model: Any, opt_state: Any) -> Any:
        loss, gradients = eqx.filter_value_and_grad(lambda model: squared_error(jax.vmap(model)(INPUTS)))(model)
        updates, opt_state = TX.update(gradients, opt_state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), opt_state, loss

    losses = []
    for _ in range(STEPS):
        model, opt_state, loss = descend(model, opt_state)
        losses.append(float(loss))
    assert_trained(eqx.filter(model, eqx.is_inexact_array), opt_state, losses)


def test_a_plain_dict_saved_as_plain_arrays(tmp_path: Any) -> None:
    rng = np.random.default_rng(1)
    params = {
        "w1": jnp.array(rng.normal(size=(12, 16)) / 4, jnp.float32),
        "b1": jnp.zeros(16),
        "w2": jnp.array(rng.normal(size=(16, 3)) / 4, jnp.float32),
    }
    opt_state = TX.init(params)
    params = apply_masks(params, opt_state)

    @jax.jit
    def descend(params: Any, opt_state: Any) -> Any:
        def loss_of(params: Any) -> jax.Array:
            return squared_error(jnp.tanh(INPUTS @ params["w1"] + params["b1"]) @ params["w2"])

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, opt_state = TX.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    losses = []
    for number in range(STEPS):
        if number == 31:
            leaves, structure = jax.tree.flatten((params, opt_state))
            np.savez(tmp_path / "saved.npz", *leaves)
            with np.load(tmp_path / "saved.npz") as saved:
                params, opt_state = jax.tree.unflatten(structure, list(saved.values()))
        params, opt_state, loss = descend(params, opt_state)
        losses.append(float(loss))
    assert_trained(params, opt_state, losses)
