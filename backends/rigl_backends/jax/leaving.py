"""Trained parameters as what other tools of JAX know: its own sparse matrices."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO

from rigl_backends.jax.active_trees import dense
from rigl_backends.jax.handle import masks
from rigl_backends.jax.trees import Tree, named_leaves, with_leaves


def to_bcoo(params: Tree, opt_state: Any) -> Tree:
    """The parameters with `jax.experimental.sparse.BCOO` matrices in the place of sparse layers, for inference.

    The matrices have the shapes of the arrays, so ``x @ params["fc1"]["kernel"]`` stays as it is, also under ``jit``.

    Args:
        params: the parameters. Arrays with other than two axes, and of dense layers, stay as they are; active weights
            of convolutions become dense arrays.
        opt_state: the state that `sparsify`'s ``init`` or ``update`` gave; outside ``jit``.

    Raises:
        ValueError: if weights outside the masks were found not to be zero, as without `apply_masks`.
    """
    found, whole = masks(opt_state, params), dense(params)
    own = {name: array for name, array in named_leaves(whole).items() if name in found and array.ndim == 2}
    matrices = {name: _bcoo(array, np.asarray(found[name])) for name, array in own.items() if not found[name].all()}
    return with_leaves(whole, matrices)


def _bcoo(array: Array, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> BCOO:
    """A matrix of the active weights, in the order of their flat indices."""
    places = np.argwhere(mask).astype(np.int32)
    values = array[tuple(places.T)]
    return BCOO((values, jnp.asarray(places)), shape=array.shape, indices_sorted=True, unique_indices=True)
