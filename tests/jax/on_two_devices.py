"""Train on one device, and on two in the way that the command line names. Fail unless the masks are the same."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rigl_backends.jax import apply_masks, masks, sparsify
from rigl_core import RigL, UpdateSchedule

RECIPE = RigL(0.8, schedule=UpdateSchedule(end=100, every=2))
TX = sparsify(optax.adam(1e-3), RECIPE)
MESH = Mesh(np.array(jax.devices()), ("device",))
EVERYWHERE, IN_HALVES = PartitionSpec(), PartitionSpec("device")
STEPS = 7


def main(way: str) -> None:
    """Compare the masks of a training on one device with those of a training on two."""
    rng = np.random.default_rng(0)
    shapes = {"first": (64, 128), "second": (128, 32), "third": (32, 10)}
    params = {name: jnp.array(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    batch = jnp.array(rng.normal(size=(32, 64)), jnp.float32), jnp.array(rng.integers(10, size=32))
    alone = train(jax.jit(take_step), params, batch)
    together = {"data": on_halves_of_a_batch, "model": on_halves_of_weights, "shard_map": mapped, "pmap": copied}.get(
        way, ensemble
    )
    assert len(jax.devices()) == 2
    for name, mask in together(params, batch).items():
        assert mask.sum() == alone[name].sum() < mask.size or name == "third"
        assert np.array_equal(mask, alone[name]), f"{name}: {np.sum(mask != alone[name])} differ"
    print("the same masks")


def take_step(params: Any, state: Any, batch: Any) -> Any:
    """The user's step."""
    return descend(params, state, jax.grad(loss_of)(params, *batch))


def take_step_together(params: Any, state: Any, batch: Any) -> Any:
    """The user's step on one of several devices, with the mean of the gradients."""
    return descend(params, state, jax.lax.pmean(jax.grad(loss_of)(params, *batch), "device"))


def descend(params: Any, state: Any, gradients: Any) -> Any:
    """The optimizer's part of the user's step."""
    updates, state = TX.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def loss_of(params: Any, inputs: Any, labels: Any) -> Any:
    """Cross-entropy."""
    x = jax.nn.relu(inputs @ params["first"])
    logits = jax.nn.relu(x @ params["second"]) @ params["third"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train(step: Any, params: Any, batch: Any) -> dict[str, Any]:
    """The masks after some steps."""
    state = TX.init(params)
    params = apply_masks(params, state)
    for _ in range(STEPS):
        params, state = step(params, state, batch)
    return jax.tree.map(np.asarray, masks(state, params))


def on_halves_of_a_batch(params: Any, batch: Any) -> dict[str, Any]:
    """Each device has all weights and half of the examples."""
    params = jax.device_put(params, NamedSharding(MESH, EVERYWHERE))
    return train(jax.jit(take_step), params, jax.device_put(batch, NamedSharding(MESH, IN_HALVES)))


def on_halves_of_weights(params: Any, batch: Any) -> dict[str, Any]:
    """Each device has half of each matrix; masks are sharded like the weights."""
    params = jax.device_put(params, NamedSharding(MESH, IN_HALVES))
    state = TX.init(params)
    assert state.masks["first"].sharding == params["first"].sharding
    return train(jax.jit(take_step), params, batch)


def mapped(params: Any, batch: Any) -> dict[str, Any]:
    """Each device runs the same program on its half of the batch (`jax.shard_map`)."""
    specs = (EVERYWHERE, EVERYWHERE, IN_HALVES)
    step = jax.shard_map(take_step_together, mesh=MESH, in_specs=specs, out_specs=(EVERYWHERE, EVERYWHERE))
    return train(jax.jit(step), params, batch)


def ensemble(params: Any, batch: Any) -> dict[str, Any]:
    """Each device has its own training (`jax.shard_map`); both with the same numbers, with callbacks and without."""
    state = TX.init(params)
    params = apply_masks(params, state)
    params, state = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (params, state))

    def step_of_one(callbacks: bool, params: Any, state: Any, batch: Any) -> Any:
        tx = sparsify(optax.adam(1e-3), RECIPE, callbacks=callbacks)
        params, state = jax.tree.map(lambda leaf: leaf[0], (params, state))
        updates, state = tx.update(jax.grad(loss_of)(params, *batch), state, params)
        return jax.tree.map(lambda leaf: leaf[None], (optax.apply_updates(params, updates), state))

    found = []
    for callbacks in (False, True):
        own, specs = functools.partial(step_of_one, callbacks), (IN_HALVES, IN_HALVES, EVERYWHERE)
        step = jax.jit(jax.shard_map(own, mesh=MESH, in_specs=specs, out_specs=(IN_HALVES, IN_HALVES)))
        after, later = params, state
        for _ in range(STEPS):
            after, later = step(after, later, batch)
        found += [jax.tree.map(lambda leaf, i=i: leaf[i], (after, later)) for i in range(2)]
    first, *others = [jax.tree.map(np.asarray, masks(later, after)) for after, later in found]
    assert all(np.array_equal(own[name], first[name]) for own in others for name in first)
    return first


def copied(params: Any, batch: Any) -> dict[str, Any]:
    """The older way (`jax.pmap`): the first axis of every array has one entry for each device."""
    state = TX.init(params)
    params = apply_masks(params, state)
    params, state = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (params, state))
    batch = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), batch)
    step = jax.pmap(take_step_together, axis_name="device")
    for _ in range(STEPS):
        params, state = step(params, state, batch)
    params, state = jax.tree.map(lambda leaf: leaf[0], (params, state))
    return jax.tree.map(np.asarray, masks(state, params))


if __name__ == "__main__":
    main(sys.argv[1])
