"""The initial topology of layers that hold only their active weights (contract: N2, M3, M7)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rigl_core.arrays import numpy_namespace
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.random import INITIAL, random_key
from rigl_core.parts.structures import Unstructured
from rigl_core.plan import Plan
from rigl_core.sparse.gradients import BLOCK
from rigl_core.sparse.index import Index
from rigl_core.sparse.layer import places_in
from rigl_core.sparse.places import Flat, width_for
from rigl_core.sparse.update import first_flat
from rigl_core.step.update import initial_masks
from rigl_core.step.workers import Values


def first_indices(
    plan: Plan,
    positions: Sequence[int],
    weights: Mapping[int, Values],
    scores: Mapping[str, Any] | None,
) -> dict[int, Index]:
    """The initial topologies.

    Random ones are drawn block by block, and need no weights.

    Args:
        plan: the plan.
        positions: of the layers in the plan.
        weights: the dense weights by position, flat, as far as they exist.
        scores: the user's scores by layer name, in any shape, if the recipe reads some.

    Raises:
        ValueError: if a choice needs dense weights that there are not.
    """
    initial = plan.recipe.rule.initial
    for position in positions:
        if position not in weights and not (initial.reads_random or initial.reads_scores):
            raise ValueError(
                f"layer {plan.layers[position].name!r} was never made, and its first connections are chosen by "
                f"{initial.name!r}, which reads its weights: make the model on a device, or begin with random "
                "connections."
            )
    flat: dict[int, Flat] = {}
    for pool in plan.pools:
        if pool[0] in positions:
            flat |= _chosen(plan, [_Dense(plan, i, weights.get(i), scores) for i in pool])
    return {i: _index(plan, i, flat[i]) for i in positions}


def saved_indices(plan: Plan, positions: Sequence[int], masks: Mapping[str, Any]) -> dict[int, Index]:
    """The topologies of a saved state, whose masks are given by layer name."""
    return {i: _index(plan, i, places_in(masks[plan.layers[i].name])) for i in positions}


class _Dense:
    """All connections of a layer before the first step; numbers that do not exist count as 0.

    Attributes:
        position: of the layer in the plan.
    """

    def __init__(self, plan: Plan, position: int, weight: Values | None, scores: Mapping[str, Any] | None) -> None:
        self.position, self._layer, self._weight = position, plan.layers[position], weight
        self._scores = None if scores is None else np.asarray(scores[self._layer.name]).reshape(-1)
        self._key = random_key(plan.recipe.seed, self._layer.name, INITIAL)

    def part(self, start: int, stop: int) -> Connections:
        """Those from one flat index to before another. Scores, which may be bools, become float32 like weights."""
        weight = np.zeros(stop - start, np.float32) if self._weight is None else self._weight[start:stop]
        scores = None if self._scores is None else self._scores[start:stop].astype(np.float32)
        indices = np.arange(start, stop, dtype=np.int32)
        return Connections(weight, None, indices, self._key, scores=scores, layer=self._layer)

    def blocks(self) -> Iterator[Connections]:
        """All of them, block by block."""
        for start in range(0, self._layer.size, BLOCK):
            yield self.part(start, min(start + BLOCK, self._layer.size))

    def whole(self) -> Connections:
        """All of them at once."""
        return self.part(0, self._layer.size)


def _chosen(plan: Plan, pool: Sequence[_Dense]) -> dict[int, Flat]:
    """The initial connections of a pool. Layers that choose together or in groups are read whole, others in blocks."""
    rule, active = plan.recipe.rule, [plan.initial_active[layer.position] for layer in pool]
    if len(pool) == 1 and isinstance(rule.structure, Unstructured) and not rule.floor:
        return {pool[0].position: first_flat(rule.initial, pool[0].blocks(), active[0])}
    masks = initial_masks(rule, [layer.whole() for layer in pool], active, xp=numpy_namespace)
    return {layer.position: places_in(mask) for layer, mask in zip(pool, masks, strict=True)}


def _index(plan: Plan, position: int, flat: Flat) -> Index:
    layer = plan.layers[position]
    rows, kernel = layer.n_out, math.prod(layer.shape[axis] for axis in layer.kernel_axes)
    cols, inputs_first = layer.n_in * kernel, layer.out_axes != (0,)
    width = width_for(cols, plan.active[position] / max(layer.size, 1), kernel)
    return Index.of(flat, rows, cols, inputs_first=inputs_first, width=width, kernel=kernel)
