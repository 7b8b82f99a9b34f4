"""An optimizer's trace says which of its state stays zero outside the masks; trainings confirm it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest

from rigl_backends.jax.state import NewState, fresh_outside, held_by, leaves_at, with_leaves_at
from rigl_backends.jax.trees import named_leaves, zero_tree_outside
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
"""The least number of an optimizer's arrays that need no masking."""


def held(tx: Any, params: Any, state: Any, names: Any = (LAYER,)) -> Any:
    """What is known of a compiled step."""
    found: list[Any] = []

    def step(gradients: Any, state: Any, params: Any) -> None:
        found.append(held_by(tx, gradients, state, params, {}, names=names))

    jax.eval_shape(step, params, state, params)
    return found[0]


def kept(tx: Any, params: Any, state: Any, names: Any = (LAYER,)) -> Any:
    return held(tx, params, state, names).keeps


@pytest.mark.parametrize("name", INNERS)
def test_state_that_needs_no_mask_stays_as_new(name: str) -> None:
    """It also stays zero if other gradients are not finite."""
    tx, params = INNERS[name][0](), make_params(layers=["fc1"])
    mask = np.random.default_rng(1).random((12, 10)) < 0.3
    params = zero_tree_outside(params, {LAYER: mask})
    state = tx.init(params)
    own = held(tx, params, state)
    flags, positions = own.keeps[LAYER], own.positions[LAYER]
    assert sum(flags) >= SEEN.get(name, 0)
    fresh = NewState(tx.init, params, {}).of({}, positions)
    for number in range(4):
        gradients = zero_tree_outside(make_gradients(params, number), {LAYER: mask})
        if number == 2:
            gradients["fc1"]["bias"] = gradients["fc1"]["bias"].at[0].set(np.nan)
            gradients["fc1"]["kernel"] = gradients["fc1"]["kernel"].at[tuple(np.argwhere(mask)[0])].set(np.inf)
        _, state = tx.update(gradients, state, params)
        for i, array, new, flag in zip(positions, leaves_at(state, positions), fresh, flags, strict=True):
            if flag:
                np.testing.assert_array_equal(np.asarray(array)[~mask], np.asarray(new)[~mask])
            else:
                state = with_leaves_at(state, dict(zip([i], fresh_outside([array], [new], mask), strict=True)))


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
    assert kept(tx, params, state)[LAYER]
    assert not any(kept(tx, params, state)[LAYER])


def test_another_layers_zeros_are_no_help() -> None:
    """The optimizer swaps the layers' gradients, and zeros of one layer are not where the other's mask is false."""

    def swapped(updates: Any, params: Any) -> Any:
        return dict(zip(updates, reversed(updates.values()), strict=True))

    params = {name: make_params()["fc1"]["kernel"] for name in ("a", "b")}
    tx = optax.chain(optax.stateless(swapped), optax.trace(0.9))

    flags = kept(tx, params, tx.init(params), {"a", "b"})
    assert list(named_leaves(params)) == sorted(flags) == ["a", "b"]
    assert not any(flags["a"] + flags["b"])
