"""Properties of errors: every backend gives the same sentences, with the user's own names (rule P3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rigl_core.methods import RigL
from rigl_core.model.layers import Layer
from rigl_core.parts.distributions import Uniform
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing.checks import checks
from rigl_core.testing.harness import Harness, Session
from rigl_core.testing.recording import Recorded, assert_same
from rigl_core.testing.strategies import SGD

_LAYER = Layer("fc0.weight", (4, 3), in_axes=(1,), out_axes=(0,))
_PARAMS = {"fc0.weight": np.ones((4, 3), np.float32), "fc0.bias": np.zeros(4, np.float32)}


def _start(harness: Harness, mode: str, sparsity: float | None, *, dtype: str = "float32", **options: Any) -> Session:
    recipe = RigL(sparsity, schedule=UpdateSchedule(end=10, every=2), **options)
    return harness.start(_PARAMS, [_LAYER], recipe, SGD, dtype=dtype, mode=mode)


@checks("P3")
def test_a_recipe_that_does_not_fit_the_model(harness: Harness, mode: str) -> None:
    """Unknown patterns, nothing to sparsify, no sparsity."""
    with pytest.raises(ValueError, match=r"dense holds the pattern 'fc9\.\*', which matches no layer.*'fc0\.weight'"):
        _start(harness, mode, 0.5, dense=["fc9.*"])
    with pytest.raises(ValueError, match=r"layer_sparsity holds the pattern 'nope', which matches no layer"):
        _start(harness, mode, 0.5, layer_sparsity={"nope": 0.5})
    with pytest.raises(ValueError, match=r"sparsity=0\.5 has nothing to sparsify: every layer is pinned"):
        _start(harness, mode, 0.5, distribution=Uniform())
    with pytest.raises(ValueError, match=r"sparsity is missing, and layer 'fc0\.weight' has none of its own"):
        _start(harness, mode, None)


@checks("P3")
def test_what_is_no_recipe(harness: Harness, mode: str) -> None:
    """A number in place of a recipe is refused."""
    with pytest.raises(TypeError, match=r"recipe is 0\.9: it must be a Recipe, such as rigl_core\.RigL\(0\.9"):
        harness.start(_PARAMS, [_LAYER], 0.9, SGD, mode=mode)  # type: ignore[arg-type]


@checks("P3")
def test_a_dtype_that_has_no_masks(harness: Harness, mode: str) -> None:
    """Complex weights, which every framework has, are refused."""
    message = r"layer 'fc0\.weight' has the dtype complex64: only float16, bfloat16, float32, float64 have masks"
    with pytest.raises(ValueError, match=message):
        _start(harness, mode, 0.5, dtype="complex64")


@checks("P3")
def test_sparsifying_twice(harness: Harness, mode: str) -> None:
    """It is refused, and the training goes on unchanged."""
    session, other = _start(harness, mode, 0.5), _start(harness, mode, 0.5)
    gradients = {name: np.ones_like(param) for name, param in _PARAMS.items()}
    with pytest.raises(ValueError, match=r"^(optimizer|inner) is already sparsified: give it as it was before"):
        session.sparsify_again()
    for _ in range(4):
        session.step(gradients)
        other.step(gradients)
    assert_same(Recorded.of(session), Recorded.of(other))
