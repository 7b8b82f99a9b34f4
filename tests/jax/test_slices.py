"""Stacks of layers as JAX's libraries make them, and a topology for each member of an ensemble."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from rigl_backends.jax import apply_masks, choose_layers, describe, masks, plan, resume, sparsify
from rigl_core import NM, Constant, Layer, RigL, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.jax.helpers import make_gradients, make_step, start

KEY = jax.random.key(0)
RECIPE = RigL(0.7, schedule=UpdateSchedule(end=9, every=2), drop_fraction=Constant(0.5))


class Block(linen.Module):
    attends: bool

    @linen.compact
    def __call__(self, x: Any, _: None) -> Any:
        if self.attends:
            x = x + linen.MultiHeadDotProductAttention(num_heads=2, name="attention")(x, x)
        return x + linen.Dense(8, name="down")(linen.relu(linen.Dense(12, name="up")(x))), None


class Scanned(linen.Module):
    """Three blocks under a scan, whose parameters are stacked along an axis."""

    axis: int
    attends: bool = True

    @linen.compact
    def __call__(self, x: jax.Array) -> Any:
        axes, keys = {"params": self.axis}, {"params": True}
        blocks = linen.scan(Block, variable_axes=axes, split_rngs=keys, length=3)
        return linen.Dense(4, name="head")(blocks(self.attends, name="layers")(x, None)[0])


def counts(mask: Any, axis: int) -> list[int]:
    """The active connections of each layer of a stack."""
    by_layer: list[int] = np.moveaxis(np.asarray(mask), axis, 0).reshape(3, -1).sum(1).tolist()
    return by_layer


@checks("B12")
@pytest.mark.parametrize("axis", [0, 1])
def test_conventions_tell_of_one_layer_of_a_scan(axis: int) -> None:
    net, x, stacked = Scanned(axis), jnp.ones((2, 5, 8)), {"layers/*": axis}
    params = jax.eval_shape(net.init, KEY, x)["params"]
    layers = choose_layers(params, stacked=stacked)
    one = {layer.name: layer.one_slice for layer in layers}
    assert len(one) == 7
    for name, *described in (
        ("layers/up/kernel", (8, 12), (0,), (1,)),
        ("layers/attention/query/kernel", (8, 2, 4), (0,), (1, 2)),
        ("layers/attention/out/kernel", (2, 4, 8), (0, 1), (2,)),
        ("head/kernel", (8, 4), (0,), (1,)),
    ):
        assert one[name] == Layer(name, *described)
    network = describe(lambda params, x: net.apply({"params": params}, x), params, x, examples=2, stacked=stacked)
    assert network.layers == tuple(layers)
    assert network.positions["layers/up/kernel"] == 5


@checks("B12", "T7")
def test_layers_of_a_scan_keep_equal_numbers() -> None:
    net, x, stacked = Scanned(1, attends=False), jnp.ones((2, 8)), {"layers/*": 1}
    params = make_gradients(jax.eval_shape(net.init, KEY, x)["params"], 9)
    planned = plan(params, RECIPE, stacked=stacked)
    tx = sparsify(optax.adam(1e-2), RECIPE, stacked=stacked)
    params, opt_state = start(tx, params)
    first, descend = masks(opt_state, params), make_step(tx)
    for number in range(3):
        params, opt_state = descend(params, opt_state, make_gradients(params, number))
    for layer, active in zip(planned.layers, planned.active, strict=True):
        mask = masks(opt_state, params)[layer.name]
        assert (mask != first[layer.name]).any()
        if layer.stacked:
            assert counts(mask, 1) == [active // 3] * 3


def test_groups_of_two_of_four_lie_along_the_inputs_of_each_layer() -> None:
    params = {"layers": {"kernel": jnp.ones((8, 3, 12))}}
    recipe = RigL(schedule=RECIPE.schedule, structure=NM(2, 4))
    mask = np.asarray(sparsify(optax.sgd(0.1), recipe, stacked={"*": 1}).init(params).masks["layers/kernel"])
    assert (mask.reshape(2, 4, 3, 12).sum(1) == 2).all()


def test_norms_of_a_stack_stay_dense_in_a_dict() -> None:
    """A vector of each layer is a matrix of the stack."""
    params = {"layers": {"norm": jnp.ones((3, 8)), "w": jnp.ones((3, 8, 8))}, "out": jnp.ones((8, 2))}
    assert [layer.name for layer in choose_layers(params, stacked={"layers/*": 0})] == ["layers/w", "out"]


@checks("B12")
def test_an_equinox_ensemble_has_a_topology_for_each_member() -> None:
    keys = jax.random.split(KEY, 3)
    members = eqx.filter_eval_shape(eqx.filter_vmap(lambda key: eqx.nn.MLP(4, 3, 6, 1, key=key)), keys)
    one = eqx.filter_eval_shape(lambda key: eqx.nn.MLP(4, 3, 6, 1, key=key), KEY)
    layers = choose_layers(members, stacked={"*": 0})
    assert [layer.one_slice for layer in layers] == choose_layers(one)
    arrays = make_gradients(eqx.filter(members, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)), 0)
    opt_state = sparsify(optax.sgd(0.1), RECIPE, stacked={"*": 0}).init(arrays)
    for layer in layers:
        mask = np.asarray(opt_state.masks[layer.name])
        assert len(set(counts(mask, 0))) == 1
        assert (mask[0] != mask[1]).any()


@checks("B12", "N1")
@pytest.mark.parametrize("callbacks", [True, False])
def test_members_under_vmap_train_as_each_alone(callbacks: bool) -> None:
    """All of them start from one random topology, that of the layer's name."""
    tx = sparsify(optax.adam(1e-2), RECIPE, callbacks=callbacks)
    params = {"w": jax.random.normal(KEY, (3, 8, 8))}
    gradients = [make_gradients(params, number) for number in range(4)]
    opt_state = jax.vmap(tx.init)(params)
    together = jax.vmap(apply_masks)(params, opt_state)
    assert (opt_state.masks["w"][0] == opt_state.masks["w"][1]).all()
    members, descend = jax.jit(jax.vmap(make_step(tx))), make_step(tx)
    for own in gradients:
        together, opt_state = members(together, opt_state, own)
    for i in range(3):
        alone, own_state = start(tx, {"w": params["w"][i]})
        for own in gradients:
            alone, own_state = descend(alone, own_state, {"w": own["w"][i]})
        assert (own_state.masks["w"] == opt_state.masks["w"][i]).all()
        np.testing.assert_allclose(alone["w"], together["w"][i], rtol=1e-5)  # the compiled sums differ


@checks("P2", "B12")
def test_a_state_without_the_stack_is_refused() -> None:
    params = {"w": jax.random.normal(KEY, (3, 8, 8))}
    saved = sparsify(optax.sgd(0.1), RECIPE).init(params)
    with pytest.raises(ValueError, match="in the slices of layer 'w': they must have equal numbers"):
        resume(sparsify(optax.sgd(0.1), RECIPE, stacked={"w": 0}), saved, params)
