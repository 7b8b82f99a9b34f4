"""Truly sparse layers in the loops of other libraries: flax linen's TrainState, flax nnx and equinox."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState
from jax import Array

from rigl_backends.jax import ActiveWeight, apply_masks, masks, sparse_conv, sparse_linear, sparsify
from rigl_backends.jax.link import Link
from rigl_core import Constant, RigL, Uniform, UpdateSchedule
from rigl_core.sparse import numpy_kernels

INPUTS = jnp.array(np.random.default_rng(0).normal(size=(16, 12)), jnp.float32)
TARGETS = jnp.sin(INPUTS[:, :3])
KEY = jax.random.key(0)
SCHEDULE = UpdateSchedule(end=10, every=2)
RECIPE = RigL(0.7, schedule=SCHEDULE, drop_fraction=Constant(0.4), distribution=Uniform(first_dense=False))
TX = sparsify(optax.adam(0.03), RECIPE, storage={"*": "active"})


def error(outputs: Array) -> Array:
    return jnp.mean((outputs - TARGETS) ** 2)


def assert_moves(before: dict[str, Array], after: dict[str, Array]) -> None:
    for name, mask in before.items():
        assert mask.sum() == after[name].sum() == round(0.3 * mask.size)
        assert (mask != after[name]).any()


class Sparse(linen.Module):
    """A layer without a bias."""

    shape: tuple[int, ...]

    @linen.compact
    def __call__(self, x: Array) -> Array:
        if self.has_variable("params", "kernel"):  # since `param` would compare shapes
            kernel = self.get_variable("params", "kernel")
        else:
            kernel = self.param("kernel", linen.initializers.lecun_normal(), self.shape)
        return sparse_linear(kernel, x) if len(self.shape) == 2 else sparse_conv(kernel, x, padding="SAME")


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: Array) -> Array:
        x = Sparse((2, 5, 3, 3), name="conv")(x.reshape(-1, 2, 2, 3))
        return Sparse((12, 3), name="fc")(x.reshape(-1, 12))


def test_a_train_state() -> None:
    params = jax.jit(Linen().init)(KEY, INPUTS)["params"]
    state = TrainState.create(apply_fn=Linen().apply, params=params, tx=TX)
    state = state.replace(params=apply_masks(state.params, state.opt_state))
    before = masks(state.opt_state, state.params)

    @jax.jit
    def train(state: TrainState) -> TrainState:
        gradients = jax.grad(lambda params: error(state.apply_fn({"params": params}, INPUTS)))(state.params)
        return state.apply_gradients(grads=gradients)

    for _ in range(3):
        state = train(state)
    assert_moves(before, masks(state.opt_state, state.params))


class Flax(nnx.Module):
    def __init__(self) -> None:
        self.conv = nnx.Conv(3, 3, (2, 5), rngs=nnx.Rngs(0))
        self.layer = nnx.Linear(12, 3, rngs=nnx.Rngs(0))

    def __call__(self, x: Array) -> Array:
        x = sparse_conv(self.conv.kernel.get_value(), x.reshape(-1, 2, 2, 3), padding="SAME") + self.conv.bias
        x = x.reshape(-1, 12)
        return sparse_linear(self.layer.kernel.get_value(), x) + self.layer.bias


def test_flax_nnx() -> None:
    model = Flax()
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)
    nnx.update(model, apply_masks(nnx.state(model, nnx.Param), optimizer.opt_state))
    assert isinstance(model.layer.kernel.get_value(), ActiveWeight)
    before = masks(optimizer.opt_state, nnx.state(model, nnx.Param))

    @nnx.jit
    def train(model: Flax, optimizer: Any) -> None:
        optimizer.update(model, nnx.grad(lambda model: error(model(INPUTS)))(model))

    for _ in range(3):
        train(model, optimizer)
    assert_moves(before, masks(optimizer.opt_state, nnx.state(model, nnx.Param)))


class Equinox(eqx.Module):
    conv: eqx.nn.Conv2d
    layer: eqx.nn.Linear

    def __call__(self, x: Array) -> Array:
        x = x.reshape(-1, 3, 2, 2)
        x = sparse_conv(self.conv.weight, x, padding="SAME", inputs_first=False, channels_last=False) + self.conv.bias
        x = x.reshape(-1, 12)
        return sparse_linear(self.layer.weight, x, inputs_first=False) + self.layer.bias


def test_equinox() -> None:
    model = Equinox(eqx.nn.Conv2d(3, 3, (2, 5), key=KEY), eqx.nn.Linear(12, 3, key=KEY))
    opt_state = TX.init(eqx.filter(model, eqx.is_array))
    model = apply_masks(model, opt_state)
    before = masks(opt_state, model)

    @eqx.filter_jit
    def train(model: Equinox, opt_state: Any) -> tuple[Equinox, Any]:
        gradients = eqx.filter_grad(lambda model: error(model(INPUTS)))(model)
        updates, opt_state = TX.update(gradients, opt_state, eqx.filter(model, eqx.is_array))
        return optax.apply_updates(model, updates), opt_state

    for _ in range(3):
        model, opt_state = train(model, opt_state)
    assert_moves(before, masks(opt_state, model))


def test_without_numba() -> None:
    """NumPy's kernels give the same, up to rounding."""
    params = {"kernel": jnp.array(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)}
    weight = apply_masks(params, TX.init(params))["kernel"]

    def gradient(weight: ActiveWeight) -> Array:
        found: Array = jax.jit(jax.grad(lambda weight: error(sparse_linear(weight, INPUTS))))(weight).values
        return found

    fast = gradient(weight)
    assert isinstance(weight.link, Link)
    weight.link.kernels = numpy_kernels
    np.testing.assert_allclose(gradient(weight), fast, rtol=1e-5, atol=1e-6)
