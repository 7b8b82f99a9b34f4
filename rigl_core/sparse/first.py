"""The initial topology of layers that hold only their active weights (contract: N2, M3, M7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import numpy_namespace
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.random import INITIAL, random_key
from rigl_core.parts.structures import Unstructured
from rigl_core.plan import Plan
from rigl_core.sparse.gradients import BLOCK
from rigl_core.sparse.index import Flat, Index, width_for
from rigl_core.sparse.update import first_flat
from rigl_core.step.update import initial_masks

Values = npt.NDArray[Any]


def first_indices(
    plan: Plan,
    positions: Sequence[int],
    weights: Mapping[int, Values],
    scores: Mapping[str, Values] | None,
) -> dict[int, Index]:
    """The initial topologies.

    Random ones are drawn block by block, and need no weights.

    Args:
        plan: the plan.
        positions: of the layers in the plan.
        weights: the dense weights by position, flat, as far as they exist.
        scores: the user's scores by layer name, flat, if the recipe reads some.

    Raises:
        ValueError: if a choice needs dense weights that there are not.
    """
    flat: dict[int, Flat] = {}
    initial, structure = plan.recipe.rule.initial, plan.recipe.rule.structure
    for position in positions:
        if position not in weights and not (initial.reads_random or initial.reads_scores):
            raise ValueError(
                f"layer {plan.layers[position].name!r} was never made, and its first connections are chosen by "
                f"{initial.name!r}, which reads its weights: make the model on a device, or begin with random "
                "connections."
            )
    for pool in plan.pools:
        if pool[0] not in positions:
            continue
        if len(pool) == 1 and isinstance(structure, Unstructured):
            flat[pool[0]] = _streamed(plan, pool[0], weights.get(pool[0]), scores)
        else:
            flat |= _together(plan, pool, weights, scores)
    return {i: _index(plan, i, flat[i]) for i in positions}


def saved_indices(plan: Plan, positions: Sequence[int], masks: Mapping[str, Values]) -> dict[int, Index]:
    """The topologies of a saved state, whose flat masks are given by layer name."""
    flat = {i: np.flatnonzero(masks[plan.layers[i].name]).astype(np.int32) for i in positions}
    return {i: _index(plan, i, flat[i]) for i in positions}


def _streamed(plan: Plan, position: int, weight: Values | None, scores: Mapping[str, Values] | None) -> Flat:
    """The best connections of a layer on its own, which are seen block by block."""
    layer, recipe = plan.layers[position], plan.recipe
    key, given = random_key(recipe.seed, layer.name, INITIAL), None if scores is None else scores[layer.name]

    def blocks() -> Iterator[Connections]:
        for start in range(0, layer.size, BLOCK):
            indices = np.arange(start, min(start + BLOCK, layer.size), dtype=np.int32)
            part = slice(start, start + BLOCK)
            own = np.zeros(indices.size, np.float32) if weight is None else weight[part]
            yield Connections(own, None, indices, key, scores=None if given is None else _floats(given[part]))

    return first_flat(recipe.rule.initial, blocks(), plan.initial_active[position])


def _together(
    plan: Plan, pool: Sequence[int], weights: Mapping[int, Values], scores: Mapping[str, Values] | None
) -> dict[int, Flat]:
    """The choice of a pool, or of groups, which is made from whole arrays."""
    connections = []
    for i in pool:
        layer = plan.layers[i]
        weight = weights[i] if i in weights else np.zeros(layer.size, np.float32)
        connections.append(
            Connections(
                weight,
                None,
                np.arange(layer.size, dtype=np.int32),
                random_key(plan.recipe.seed, layer.name, INITIAL),
                scores=None if scores is None else _floats(scores[layer.name]),
                layer=layer,
            )
        )
    active = [plan.initial_active[i] for i in pool]
    masks = initial_masks(plan.recipe.rule, connections, active, xp=numpy_namespace)
    return {i: np.flatnonzero(mask).astype(np.int32) for i, mask in zip(pool, masks, strict=True)}


def _index(plan: Plan, position: int, flat: Flat) -> Index:
    layer = plan.layers[position]
    rows, cols = (layer.shape[axes[0]] for axes in (layer.out_axes, layer.in_axes))
    width = width_for(cols, plan.active[position] / max(layer.size, 1))
    return Index.of(flat, rows, cols, inputs_first=layer.in_axes == (0,), width=width)


def _floats(scores: Values) -> Values:
    """The user's scores in the precision of float32 weights; bools are masks."""
    return scores.astype(np.float32)
