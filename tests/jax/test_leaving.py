"""Trained parameters as JAX's own sparse matrices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.sparse import BCOO, BCSR

from rigl_backends.jax import dense, masks, sparsify, to_bcoo
from rigl_backends.jax.trees import named_leaves
from rigl_core import RigL
from tests.jax.helpers import RECIPE, SCHEDULE, make_gradients, make_params, start


def is_matrix(node: Any) -> bool:
    return isinstance(node, BCOO)


@pytest.mark.parametrize("storage", ["masks", "active"])
def test_matrices_hold_the_active_weights_alone(storage: str) -> None:
    recipe = RECIPE if storage == "masks" else RigL(0.7, schedule=SCHEDULE)
    params = {**make_params(), "conv": jnp.ones((3, 3, 4, 6))}
    tx = sparsify(optax.adam(0.1), recipe, storage="masks" if storage == "masks" else {"fc1*": "active"})
    params, opt_state = start(tx, params)
    params["fc2"]["kernel"] = params["fc2"]["kernel"].at[0].set(0)  # weights that are active and 0 stay
    found, own = masks(opt_state, params), to_bcoo(params, opt_state)
    leaves = named_leaves(own, is_leaf=is_matrix)
    assert {name for name, leaf in leaves.items() if is_matrix(leaf)} == {"fc1/kernel", "fc2/kernel"}
    for name, whole in named_leaves(dense(params)).items():
        leaf = leaves[name]
        if is_matrix(leaf):
            assert leaf.nse == int(found[name].sum())
            np.testing.assert_array_equal(leaf.indices, np.argwhere(found[name]))
            leaf = leaf.todense()
        np.testing.assert_array_equal(leaf, whole)


def test_matrices_multiply() -> None:
    params, opt_state = start(sparsify(optax.sgd(0.1), RECIPE), make_params())
    matrix, x = to_bcoo(params, opt_state)["fc1"]["kernel"], jnp.ones((3, 12))
    expected = x @ params["fc1"]["kernel"]
    np.testing.assert_allclose(jax.jit(lambda x, matrix: x @ matrix)(x, matrix), expected, rtol=1e-5)
    rows = BCSR.from_bcoo(matrix.T.sort_indices())  # as the page says
    np.testing.assert_allclose((rows @ x.T).T, expected, rtol=1e-5)


def test_parameters_that_are_not_masked_are_refused() -> None:
    tx, params = sparsify(optax.sgd(0.1), RECIPE), make_params()
    _, opt_state = jax.jit(tx.update)(make_gradients(params, 0), tx.init(params), params)
    with pytest.raises(ValueError, match="params are not masked"):
        to_bcoo(params, opt_state)
