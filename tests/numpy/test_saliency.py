"""GraSP and SynFlow scores of networks whose derivatives are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rigl_backends.numpy import SGD, grasp_scores, sparsify, synflow_scores
from rigl_core import GraSP, SynFlow
from rigl_core.testing import models

Array = npt.NDArray[Any]
PARAMS = models.make_params("mlp", 3)
BATCH = models.make_batch(1, 0)


def test_grasp_of_a_quadratic_loss_is_exact() -> None:
    rng = np.random.default_rng(0)
    hessian = rng.normal(size=(6, 6))
    hessian = hessian @ hessian.T
    weight = rng.normal(size=(2, 3))

    # A difference of a quadratic's gradients is exact for any step; with a large one, little is lost by rounding.
    def gradients(params: dict[str, Array]) -> dict[str, Array]:
        return {"w": (hessian @ params["w"].reshape(-1)).reshape(2, 3)}

    scores = grasp_scores({"w": weight}, gradients, step=1e-3)
    expected = weight.reshape(-1) * (hessian @ hessian @ weight.reshape(-1))
    np.testing.assert_allclose(scores["w"].reshape(-1), expected, rtol=1e-9)


def test_grasp_tells_how_the_squared_gradient_changes() -> None:
    def squared_norm(params: dict[str, Array]) -> float:
        return sum(float((g**2).sum()) for g in models.gradients("mlp", params, *BATCH).values())

    scores = grasp_scores(PARAMS, lambda params: models.gradients("mlp", params, *BATCH))
    for name, place in (("fc1.weight", (3, 5)), ("fc2.weight", (2, 7))):
        moved = {key: param.copy() for key, param in PARAMS.items()}
        less = 1e-4
        moved[name][place] *= 1 - less
        back = {key: param.copy() for key, param in PARAMS.items()}
        back[name][place] *= 1 + less
        change = (squared_norm(moved) - squared_norm(back)) / (2 * less)
        np.testing.assert_allclose(-2 * scores[name][place], change, rtol=1e-3, atol=1e-8)


def flow(params: dict[str, Array]) -> dict[str, Array]:
    """The gradient of the sum of the outputs of a linear network with two layers, for an input of ones."""
    hidden = params["a"].sum(1)
    through = np.broadcast_to(params["b"].sum(0)[:, None], params["a"].shape)
    return {"a": through, "b": np.tile(hidden, (len(params["b"]), 1))}


def test_synflow_conserves_theflow_every_layer_and_prunes_in_rounds() -> None:
    rng = np.random.default_rng(1)
    params = {"a": rng.normal(size=(4, 6)), "b": rng.normal(size=(2, 4))}
    once = synflow_scores(params, flow, 0.0, layers=["a", "b"], rounds=1)
    np.testing.assert_allclose(once["a"].sum(), once["b"].sum())
    scores = synflow_scores(params, flow, 0.75, layers=["a", "b"], rounds=50)
    assert sum(int((values >= 0).sum()) for values in scores.values()) == 8
    assert all((values >= 0).any() for values in scores.values()), "no layer collapses"
    hidden = (scores["a"] >= 0).any(1)
    np.testing.assert_array_equal(hidden, (scores["b"] >= 0).any(0))


@pytest.mark.parametrize("recipe", [GraSP(0.8), SynFlow(0.8)], ids=lambda recipe: recipe.method)
def test_scores_choose_the_topology(recipe: Any) -> None:
    params = {name: param.copy() for name, param in PARAMS.items()}
    layers = models.make_layers("mlp")
    if recipe.method == "GraSP":
        scores = grasp_scores(params, lambda params: models.gradients("mlp", params, *BATCH))
    else:
        chain = {"a": params["fc1.weight"], "b": params["fc2.weight"]}
        by_short = synflow_scores(chain, flow, 0.8, layers=["a", "b"], rounds=10)
        scores = {"fc1.weight": by_short["a"], "fc2.weight": by_short["b"]}
    masks = sparsify(params, SGD(params), recipe, layers=layers, scores=scores).masks
    chosen = np.concatenate([scores[name][mask] for name, mask in masks.items()])
    left = np.concatenate([scores[name][~mask] for name, mask in masks.items()])
    assert chosen.size == round(0.2 * sum(layer.size for layer in layers))
    assert chosen.min() >= left.max()
