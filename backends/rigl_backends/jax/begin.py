"""`begin`: a training whose layers of active weights are never dense, not even at the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rigl_backends.jax.active_trees import is_active
from rigl_backends.jax.resume import training_of
from rigl_backends.jax.storage import first_topologies
from rigl_backends.jax.trees import Tree, name_of

Draw = Callable[[Array, int, int, int], Array]
"""Draws values from a key, their number, and a layer's numbers of inputs and outputs."""


def lecun_normal(key: Array, count: int, inputs: int, outputs: int) -> Array:
    """A truncated normal distribution with a variance of one over the inputs, as flax's Dense has it."""
    deviation = 0.87962566103423978  # of a standard normal distribution that is cut at 2
    drawn: Array = jax.random.truncated_normal(key, -2, 2, (count,))
    return jnp.asarray(drawn / (deviation * inputs**0.5))


def begin(
    tx: optax.GradientTransformation, init: Callable[[], Tree], key: Array, draw: Draw = lecun_normal
) -> tuple[Tree, Any]:
    """Parameters and optimizer state at the start, where layers of active weights never exist as dense arrays::

        params, opt_state = rigl_backends.jax.begin(tx, lambda: model.init(init_key, x), key)

    Their topology is that of any other start; they must begin at random or from scores.

    Args:
        tx: what ``sparsify(..., storage="active")`` gave.
        init: makes all parameters. It is traced, and only arrays that are no active weights are computed.
        key: for the values of active weights.
        draw: draws these: from a key, their number, and the layer's numbers of inputs and outputs.

    Raises:
        ValueError: if the first connections depend on dense weights.
    """
    training, abstract = training_of(tx), jax.eval_shape(init)
    plan = training.plan_of(abstract)
    topologies = first_topologies(training, plan, abstract, training.scores_for(plan))

    def others() -> list[Any]:
        leaves = jax.tree_util.tree_flatten_with_path(init())[0]
        return [leaf for path, leaf in leaves if name_of(path) not in topologies]

    made = iter(jax.jit(others)())
    keys = dict(zip(topologies, jax.random.split(key, len(topologies)), strict=True))

    def one(path: Any, _: Any) -> Any:
        if (name := name_of(path)) not in topologies:
            return next(made)
        own = topologies[name]
        values = draw(keys[name], own.columns.size, own.layout.cols, own.layout.rows)
        return own.weight(jnp.asarray(values, jnp.float32))

    params = jax.tree_util.tree_map_with_path(one, abstract, is_leaf=is_active)
    return params, tx.init(params)
