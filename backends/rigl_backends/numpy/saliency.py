"""Scores for topologies that are chosen once, before training: GraSP and SynFlow.

NumPy does not differentiate, so the gradients are the user's own functions. Give the scores to ``sparsify``::

    scores = grasp_scores(params, lambda params: gradients(params, images, labels))
    sparsify(params, optimizer, rigl_core.GraSP(0.9), scores=scores)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.adapter import prune_in_rounds

Array = npt.NDArray[Any]
Differentiate = Callable[[dict[str, Array]], Mapping[str, Array]]
"""Gradients by name, at these parameters."""


def grasp_scores(
    params: Mapping[str, Array], gradients: Differentiate, *, layers: Sequence[str] | None = None, step: float = 1e-6
) -> dict[str, Array]:
    """weight * (Hessian times gradient): how much the gradient flow needs each connection (Wang et al. 2020).

    What has the largest is kept: removing a weight changes the squared norm of the gradient by -2 * weight * Hg, to
    first order. Hg is a difference of two gradients, so compute them in float64.

    Args:
        params: by name.
        gradients: of the loss on one batch.
        layers: names of the arrays to be sparsified, whose gradient and Hessian it is; by default all.
        step: how far to go along the gradient and back, as a share of the parameters' norm.

    Returns:
        Arrays by layer name.
    """
    weights = {name: params[name].astype(np.float64) for name in (params if layers is None else layers)}
    found = gradients(dict(params))
    here = {name: np.asarray(found[name], np.float64) for name in weights}
    norm, size = (np.sqrt(sum(float((x**2).sum()) for x in arrays.values())) for arrays in (here, weights))
    far = step * size / norm if norm else 0.0
    ahead, behind = (
        gradients({**params, **{name: weight + sign * far * here[name] for name, weight in weights.items()}})
        for sign in (1, -1)
    )
    return {
        name: weight * (ahead[name] - behind[name]) / (2 * far) if far else np.zeros_like(weight)
        for name, weight in weights.items()
    }


def synflow_scores(
    params: Mapping[str, Array], flow: Differentiate, sparsity: float, *, layers: Sequence[str], rounds: int = 100
) -> dict[str, Array]:
    """|weight| * d flow / d |weight|, pruned in rounds (Tanaka et al. 2020, algorithm 1).

    Args:
        params: by name.
        flow: gradients of the sum of the network's outputs for an input of ones. It is called with absolute values.
        sparsity: of the recipe, over all layers.
        layers: names of the arrays to be sparsified, in the model's order.
        rounds: of pruning; the paper takes 100.

    Returns:
        Arrays by layer name; -1 where the rounds have pruned.
    """
    absolute = {name: np.abs(param) for name, param in params.items()}

    def scores(masks: dict[str, npt.NDArray[np.bool_]]) -> dict[str, Array]:
        masked = {**absolute, **{name: absolute[name] * mask for name, mask in masks.items()}}
        gradients = flow(masked)
        return {name: masked[name] * gradients[name] for name in masks}

    return prune_in_rounds(scores, {name: params[name].shape for name in layers}, sparsity, rounds)
