"""`topology`: what a training has found, for a file that every framework reads."""

from __future__ import annotations

from typing import Any

import optax

from rigl_backends.jax.handle import masks, step
from rigl_backends.jax.resume import training_of
from rigl_backends.jax.trees import Tree
from rigl_core.adapter import Topology


def topology(tx: optax.GradientTransformation, opt_state: Any, params: Tree) -> Topology:
    """The topology of a training, with the layers' axes, the recipe and the step::

        rigl_core.storage.save("found.rigl", rigl_backends.jax.topology(tx, opt_state, params))

    Args:
        tx: what `sparsify` gave.
        opt_state: the state that its ``init`` or ``update`` gave; outside ``jit``.
        params: the parameters.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    return Topology.of(training_of(tx).plan_of(params), masks(opt_state, params), step(opt_state))
