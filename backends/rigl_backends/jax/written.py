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
from rigl_core.adapter import Recipe, compare_recipes

_BYTES = "bytes"
_PAGE = 2048


def text_of(recipe: Recipe) -> str:
    """A recipe as a text."""
    return json.dumps(recipe.to_dict(), sort_keys=True)


def written(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a part of the state: its bytes, padded with zeros, and its text as the key of an empty dict."""
    return {_BYTES: jnp.asarray(_bytes_of(text_of(recipe))), text_of(recipe): {}}


def saved_recipe(state: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that a state was saved under; the array is right where it differs from the key.

    Args:
        state: what `written` gave, with known arrays.
    """
    recipe: dict[str, Any] = json.loads(_text_in(state[_BYTES]))
    return recipe


def check_written(state: Mapping[str, Any], recipe: Recipe | None = None) -> None:
    """Refuse a state of another recipe, as far as it is known: while JAX traces, the array is not.

    Args:
        state: what `written` gave.
        recipe: that must be written there; by default that of the key.

    Raises:
        ValueError: with all differences.
    """
    keys = [key for key in state if key != _BYTES]
    texts = keys if is_traced(state) else [*keys, _text_in(state[_BYTES])]
    own = json.loads(keys[0] if recipe is None else text_of(recipe))
    for text in texts:
        compare_recipes(own, json.loads(text))


def is_written(state: Mapping[str, Any], recipe: Recipe) -> Array:
    """Whether the array holds this recipe: a bool scalar."""
    own, array = _bytes_of(text_of(recipe)), state[_BYTES]
    return jnp.all(array == own) if array.shape == own.shape else jnp.zeros((), bool)


def _bytes_of(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    data = text.encode()
    return np.frombuffer(data.ljust(-(-len(data) // _PAGE) * _PAGE, b"\0"), np.uint8)


def _text_in(array: Any) -> str:
    """The text in an array; of an ensemble, that of its first member."""
    array = jax.tree.leaves(array)[0]
    data: bytes = np.asarray(array, np.uint8).reshape(-1, array.shape[-1])[0].tobytes()
    return data.rstrip(b"\0").decode()
