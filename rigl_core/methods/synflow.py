"""The outer loop of SynFlow (Tanaka et al. 2020, algorithm 1), for any framework: score, prune a little, repeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import numpy_namespace
from rigl_core.arrays.topology import top_k_mask
from rigl_core.model.numbers import active_count, check_integer, check_sparsity

Array = npt.NDArray[Any]
Masks = dict[str, npt.NDArray[np.bool_]]

PRUNED = -1.0
"""The score of a connection that an earlier round has pruned. All other scores are at least 0."""


def prune_in_rounds(
    flow: Callable[[Masks], Mapping[str, Array]], shapes: Mapping[str, tuple[int, ...]], sparsity: float, rounds: int
) -> dict[str, Array]:
    """The scores after some rounds of pruning. Each round prunes the same share of the connections that are left.

    Args:
        flow: takes masks by layer name and returns the scores, >= 0, of all connections in the network with these
            masks: arrays of the layers' shapes, by name.
        shapes: the shapes of the layers by name, in the model's order.
        sparsity: the sparsity over all layers after the last round.
        rounds: the number of rounds; 1 is single-shot pruning.

    Returns:
        Float64 arrays of the layers' shapes, by name; `PRUNED` outside the last round's masks.

    Raises:
        TypeError, ValueError: the message names the parameter.
    """
    sparsity, rounds = check_sparsity(sparsity), check_integer("rounds", rounds, 1)
    masks: Masks = {name: np.ones(shape, np.bool_) for name, shape in shapes.items()}
    size = sum(mask.size for mask in masks.values())
    scores: dict[str, Array] = {}
    for number in range(1, rounds + 1):
        seen = flow({name: mask.copy() for name, mask in masks.items()})
        scores = {name: np.where(mask, np.asarray(seen[name], np.float64), PRUNED) for name, mask in masks.items()}
        left = active_count(sparsity, size) if number == rounds else round((1 - sparsity) ** (number / rounds) * size)
        flat = np.concatenate([values.reshape(-1) for values in scores.values()])
        chosen = top_k_mask(np.where(np.isnan(flat), 0, flat), left, xp=numpy_namespace)
        ends = np.cumsum([mask.size for mask in masks.values()])[:-1]
        parts = zip(masks.items(), np.split(chosen, ends), strict=True)
        masks = {name: part.reshape(mask.shape) for (name, mask), part in parts}
    return {name: np.where(masks[name], values, PRUNED) for name, values in scores.items()}
