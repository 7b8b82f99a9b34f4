"""What an optimizer's trace tells about its state outside the masks, and that it is so."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest

from rigl_backends.jax.trees import named_leaves, state_by_weight, zero_outside
from rigl_backends.jax.zeros import stays_zero
from tests.jax.helpers import make_gradients, make_params
from tests.jax.test_inner import INNERS

LAYER = "fc1/kernel"
SEEN = {
    "sgd with momentum": 1,
    "nesterov": 1,
    "adam": 2,
    "adamw": 2,
    "lion": 1,
    "lamb": 2,
    "masked": 2,
    "partition": 2,
    "adagrad": 1,
    "muon": 1,
}
"""How many of an optimizer's arrays need no masking, at least."""


def settled(tx: Any, params: Any, state: Any) -> list[bool]:
    def update(gradients: Any, state: Any, params: Any) -> Any:
        return tx.update(gradients, state, params)

    return stays_zero(update, params, state, params, {LAYER})


@pytest.mark.parametrize("name", INNERS)
def test_state_that_needs_no_mask_stays_zero(name: str) -> None:
    """Also where something else is not finite."""
    tx, params = INNERS[name][0](), make_params(layers=["fc1"])
    mask = np.random.default_rng(1).random((12, 10)) < 0.3
    params = zero_outside(params, {LAYER: mask})
    state = tx.init(params)
    leaves, structure = jax.tree.flatten(state)
    flags = settled(tx, params, state)
    assert sum(flags) >= SEEN.get(name, 0)
    state = jax.tree.unflatten(
        structure, [np.where(mask, x, 0).astype(x.dtype) if flag else x for x, flag in zip(leaves, flags, strict=True)]
    )
    for number in range(4):
        gradients = zero_outside(make_gradients(params, number), {LAYER: mask})
        if number == 2:
            gradients["fc1"]["bias"] = gradients["fc1"]["bias"].at[0].set(np.nan)
            gradients["fc1"]["kernel"] = gradients["fc1"]["kernel"].at[tuple(np.argwhere(mask)[0])].set(np.inf)
        _, state = tx.update(gradients, state, params)
        for leaf, flag in zip(jax.tree.leaves(state), flags, strict=True):
            assert not flag or not np.asarray(leaf)[~mask].any()


CENTERED = optax.stateless(lambda updates, params: jax.tree.map(lambda g: g - g.mean(), updates))
SCALED = optax.stateless(lambda updates, params: jax.tree.map(lambda g: g / g.sum(), updates))


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(CENTERED, optax.trace(0.9)),
        optax.chain(SCALED, optax.trace(0.9)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9)),
        optax.trace(float("inf")),
        optax.chain(optax.add_noise(0.1, 0.5, 0), optax.trace(0.9)),
    ],
    ids=["centered", "divided", "clipped", "infinite decay", "noise"],
)
def test_state_that_may_not_stay_zero_is_masked(tx: Any) -> None:
    params = make_params(layers=["fc1"])
    state = tx.init(params)
    assert any(name == LAYER for name, _ in state_by_weight(state, params))
    assert not any(settled(tx, params, state))


def test_another_layers_zeros_are_no_help() -> None:
    """Where the first layer's mask is false, the second layer's weights are not zero."""

    def swapped(updates: Any, params: Any) -> Any:
        return dict(zip(updates, reversed(updates.values()), strict=True))

    params = {name: make_params()["fc1"]["kernel"] for name in ("a", "b")}
    tx = optax.chain(optax.stateless(swapped), optax.trace(0.9))

    def update(gradients: Any, state: Any, params: Any) -> Any:
        return tx.update(gradients, state, params)

    assert list(named_leaves(params)) == ["a", "b"]
    assert not any(stays_zero(update, params, tx.init(params), params, {"a", "b"}))
