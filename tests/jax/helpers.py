"""A small network as a plain dict, and checks that hold in every sparse training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rigl_backends.jax import apply_masks, masks, step
from rigl_backends.jax.handle import find_state
from rigl_backends.jax.state import state_of
from rigl_backends.jax.trees import named_leaves
from rigl_core import RigL, UpdateSchedule

SHAPES = {"fc1": (12, 10), "fc2": (10, 6)}
SCHEDULE = UpdateSchedule(end=40, every=4)
RECIPE = RigL(0.7, schedule=SCHEDULE, seed=3)


def make_params(dtype: Any = jnp.float32, layers: Iterable[str] = SHAPES) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        name: {"kernel": jnp.array(rng.normal(size=shape), dtype), "bias": jnp.array(rng.normal(size=shape[1:]), dtype)}
        for name, shape in SHAPES.items()
        if name in layers
    }


def make_gradients(params: Any, number: int) -> Any:
    """Dense gradients for any tree of arrays; they depend on the step's number only."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng((5, number))
    return jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves])


def start(tx: Any, params: Any) -> tuple[Any, Any]:
    opt_state = tx.init(params)
    return apply_masks(params, opt_state), opt_state


def make_step(tx: Any) -> Any:
    """The user's step, compiled."""

    @jax.jit
    def descend(params: Any, opt_state: Any, gradients: Any) -> tuple[Any, Any]:
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return descend


def by_name(tree: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Copies of a tree's arrays, by name."""
    return {name: to_numpy(leaf) for name, leaf in named_leaves(tree).items()}


def to_numpy(leaf: Any) -> np.ndarray[Any, Any]:
    return np.array(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def per_weight(params: Any, opt_state: Any) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Copies of the inner optimizer's per-weight state, by layer."""
    state = state_of(find_state(opt_state).inner_state, params)
    return {name: [np.array(array) for array in arrays] for name, arrays in state.items()}


def assert_follows_the_topology(
    before: tuple[Any, Any], after: tuple[Any, Any], schedule: UpdateSchedule, inner: Any = None
) -> None:
    """Check a step of (params, opt_state): fresh outside the masks; at an update only survivors keep their bits.

    Weights are 0 outside; what is fresh in the optimizer's state is what ``inner`` gives such weights, or else 0.
    """
    number = int(step(before[1]))
    assert int(step(after[1])) == number + 1
    updates = schedule.fires(number)
    old, new = by_name(before[0]), by_name(after[0])
    old_masks, new_masks = by_name(masks(before[1], before[0])), by_name(masks(after[1], after[0]))
    old_states, new_states = per_weight(*before), per_weight(*after)
    fresh = state_of(inner.init(after[0]), after[0]) if inner else jax.tree.map(np.zeros_like, new_states)
    for name, mask in new_masks.items():
        survives = mask & old_masks[name]
        assert mask.sum() == old_masks[name].sum()
        assert updates or survives.sum() == mask.sum()
        arrays = (old[name], *old_states[name]), (new[name], *new_states[name]), (0 * new[name], *fresh[name])
        for was, now, free in zip(*arrays, strict=True):
            free = np.broadcast_to(np.asarray(free), now.shape)
            np.testing.assert_array_equal(now[~mask], free[~mask], err_msg=f"{name} outside after step {number}")
            if updates:
                np.testing.assert_array_equal(now, np.where(survives, was, free), err_msg=name)
    for name in set(old) - set(new_masks):
        for was, now in zip((old[name], *old_states[name]), (new[name], *new_states[name]), strict=True):
            assert not updates or np.array_equal(was, now), f"{name} moved at the update of step {number}"
