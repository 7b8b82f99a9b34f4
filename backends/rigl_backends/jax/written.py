"""The recipe as a part of the state, so that a state of another recipe is refused.

It is written twice: as a key, which is part of the structure that JAX knows while it traces, and as the bytes of an
array, which goes wherever arrays go. Tools may restore arrays into the structure of another state: then the two differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rigl_backends.jax.trees import is_traced
from rigl_core.adapter import Recipe, compare_recipes, from_bytes, to_bytes

_BYTES = "bytes"


def text_of(recipe: Recipe) -> str:
    """A recipe as a text."""
    return json.dumps(recipe.to_dict(), sort_keys=True)


def written(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a part of the state: its bytes, padded with zeros, and its text as the key of an empty dict."""
    return {_BYTES: _array_of(recipe), text_of(recipe): {}}


def saved_recipe(state: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that a state was saved under; the array is right where it differs from the key.

    Args:
        state: what `written` gave, with known arrays.
    """
    array = np.asarray(jax.tree.leaves(state[_BYTES])[0])
    return from_bytes(array.reshape(-1, array.shape[-1])[0])  # an ensemble has one for each member


def check_written(state: Mapping[str, Any], recipe: Recipe | None = None) -> None:
    """Refuse a state of another recipe, as far as it is known: while JAX traces, the array is not.

    Args:
        state: what `written` gave.
        recipe: that must be written there; by default that of the key.

    Raises:
        ValueError: with all differences.
    """
    found = [json.loads(key) for key in state if key != _BYTES]
    own = found[0] if recipe is None else json.loads(text_of(recipe))
    for saved in found if is_traced(state) else [*found, saved_recipe(state)]:
        compare_recipes(own, saved)


def is_written(state: Mapping[str, Any], recipe: Recipe) -> Array:
    """Whether the array holds this recipe: a bool scalar."""
    own, array = _array_of(recipe), state[_BYTES]
    return jnp.all(array == own) if array.shape == own.shape else jnp.zeros((), bool)


def _array_of(recipe: Recipe) -> Array:
    return jnp.asarray(to_bytes(recipe.to_dict()))
