"""One update of a pool of layers, for every method of `rigl_core.methods`.

A pool is a single layer, or several layers that choose together (`rigl_core.Plan.pools`). Methods differ in their
scores and in the numbers of connections that each layer keeps and grows. With these, `topology.updated_mask` chooses
the connections. Compilers can trace everything here; arrays are flat.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from rigl_core.arrays import sharing, topology
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace, count
from rigl_core.model.layers import Layer
from rigl_core.parts import slices
from rigl_core.parts.structures import Arrangement
from rigl_core.parts.units import best_with_floor, connections_of, grown_with_floor
from rigl_core.plan import Counts
from rigl_core.recipe.compatibility import decides_alone
from rigl_core.recipe.rule import Rule
from rigl_core.step.neurons import fewer_neurons
from rigl_core.step.on_host import choose_on_host
from rigl_core.step.pools import array_of, as_one_layer, both_scores, has_information, join, redistributed, split


@dataclass(frozen=True)
class Updated:
    """One layer after an update.

    Attributes:
        mask: flat bool array, the new topology.
        survivors: flat bool array, the connections that keep their weight and optimizer state.
    """

    mask: Array
    survivors: Array


def initial_masks(
    rule: Rule, pool: Sequence[Connections], active: Sequence[Array | int], *, xp: Namespace
) -> list[Array]:
    """The flat masks of a pool's layers before the first step.

    In each layer, the planned number of connections is active: those with the largest scores. If the scope is global
    and the scores are not random, the largest scores of all layers together are active.

    Args:
        rule: the rule; its ``initial`` criterion gives the scores.
        pool: the connections of each layer.
        active: the planned number of active connections of each layer (`rigl_core.Plan.initial_active`).
        xp: the arrays' namespace.
    """
    scores = [rule.initial.score(connections, xp) for connections in pool]
    if rule.scope == "global" and not rule.initial.reads_random and len(pool) > 1:
        chosen = topology.top_k_mask(join(scores, xp), sum(active), xp=xp)
        return split(chosen, scores, xp)
    return [
        _initial_mask(rule, connections, values, number, xp)
        for values, connections, number in zip(scores, pool, active, strict=True)
    ]


def _initial_mask(rule: Rule, connections: Connections, scores: Array, active: Array | int, xp: Namespace) -> Array:
    if rule.floor:
        everything = scores == scores
        return best_with_floor(scores, active, rule.floor, _outputs_of(connections), among=everything, xp=xp)
    arrangement = arrangement_of(rule, connections)
    if arrangement is None:
        return topology.best_of(scores, active, xp=xp)
    of_each_group = active // arrangement.weights_per_choice
    units = topology.top_k_mask(arrangement.scores_by_unit(scores, xp=xp), of_each_group, xp=xp)
    return arrangement.mask_by_weight(units, xp=xp)


def move_pool(
    rule: Rule, pool: Sequence[Connections], masks: Sequence[Array], counts: Counts, *, xp: Namespace
) -> list[Updated]:
    """The layers of a pool after one update, in their order. A layer without information keeps its topology (T6).

    Args:
        rule: the rule that chooses.
        pool: the connections of each layer, with their gradients (even where no score reads them).
        masks: the current mask of each layer, flat.
        counts: the numbers of connections to keep and grow in this update.
        xp: the arrays' namespace.
    """
    if rule.redistribution is not None:
        new = redistributed(rule, pool, masks, counts, xp)
    elif len(pool) > 1:
        new = as_one_layer(rule, pool, masks, counts, xp)
    else:
        new = [_alone(rule, pool[0], masks[0], counts, xp)]
    if rule.regrown == "reset":
        return [Updated(mask, kept) for mask, kept in new]
    return [Updated(mask, xp.logical_and(mask, old)) for old, (mask, _) in zip(masks, new, strict=True)]


def _updated_with_floor(
    rule: Rule,
    connections: Connections,
    drop_scores: Array,
    grow_scores: Array | None,
    mask: Array,
    counts: Counts,
    xp: Namespace,
) -> tuple[Array, Array]:
    """The new mask of a layer of which each output keeps a number of connections, and the connections kept (M11)."""
    groups = _outputs_of(connections)
    kept = best_with_floor(drop_scores, counts.keep, rule.floor, groups, among=mask, xp=xp)
    if grow_scores is None:
        return kept, kept
    return kept | grown_with_floor(grow_scores, counts.grow, rule.floor, groups, kept=kept, xp=xp), kept


def _outputs_of(connections: Connections) -> Arrangement:
    assert connections.layer is not None
    return connections_of("output", connections.layer, "floor")


def reads_axes(rule: Rule, layer: Layer) -> bool:
    """Whether a layer's axes decide which connections are chosen: in groups or slices, or by comparisons in units."""
    return rule.compares_units or slices.arrangement_of(rule.structure, layer) is not None


def arrangement_of(rule: Rule, connections: Connections) -> Arrangement | None:
    """The groups in which connections of this layer are chosen; None without a structure and without slices."""
    return None if connections.layer is None else slices.arrangement_of(rule.structure, connections.layer)


def chooses_freely(rule: Rule, connections: Connections) -> bool:
    """Whether a single layer, or each of its slices, keeps its best connections and grows the best others.

    There is no other condition, so the survivors of its update follow from the old and the new mask.
    """
    layer = connections.layer
    free = layer is None or rule.structure.arrangement(layer.one_slice) is None
    free = free and not rule.compares_units
    return free and not decides_alone(rule.drop) and rule.redistribution is None and rule.regrown == "keep"


def _alone(rule: Rule, connections: Connections, mask: Array, counts: Counts, xp: Namespace) -> tuple[Array, Array]:
    """The new mask of a single layer, and the connections that it keeps."""
    if xp.on_host is not None and chooses_freely(rule, connections):
        arrays = connections.arrays
        untraced = connections.with_arrays(range(len(arrays)))
        choose = functools.partial(choose_on_host, rule, untraced)
        if (new := xp.on_host(choose, mask, counts.keep, counts.grow, *arrays)) is not None:
            return new, new
    old, informed = mask, has_information(rule, connections, mask, xp)
    drop_scores, grow_scores = both_scores(rule, connections, xp)
    if (arrangement := arrangement_of(rule, connections)) is not None:
        mask = arrangement.mask_by_unit(mask, xp=xp)
        drop_scores = arrangement.scores_by_unit(drop_scores, xp=xp)
        grow_scores = None if grow_scores is None else arrangement.scores_by_unit(grow_scores, xp=xp)
    new, kept = _chosen(rule, connections, drop_scores, grow_scores, mask, counts, xp)
    if arrangement is not None:
        new, kept = (arrangement.mask_by_weight(chosen, xp=xp) for chosen in (new, kept))
    return (new & informed) | (old & ~informed), (kept & informed) | (old & ~informed)


def _chosen(
    rule: Rule,
    connections: Connections,
    drop_scores: Array,
    grow_scores: Array | None,
    mask: Array,
    counts: Counts,
    xp: Namespace,
) -> tuple[Array, Array]:
    """The new mask of a layer, by unit if it has groups, and what it keeps; scores and ``mask`` are by unit, too."""
    if rule.gamma_sal is not None:
        assert grow_scores is not None
        return fewer_neurons(drop_scores, grow_scores, mask, counts, rule.gamma_sal, xp=xp)
    if rule.floor:
        return _updated_with_floor(rule, connections, drop_scores, grow_scores, mask, counts, xp)
    keep, grow, negative = counts.keep, counts.grow, None
    if rule.drop.drops_zeros:  # all connections with score 0 (M4)
        active, keep = count(mask, xp=xp), count(mask & (drop_scores > 0), xp=xp)
        grow = active - keep
    if rule.drop.by_sign:  # the same share of positive and of negative weights; zeros count as positive (M4)
        negative = topology.normal(connections.weight, xp=xp) < 0
        parts = xp.concat([count(mask & ~negative, xp=xp), count(mask & negative, xp=xp)])
        keep = sharing.in_proportion(array_of(keep, parts, xp), parts, xp=xp)
    return topology.updated_mask(drop_scores, grow_scores, mask, keep, grow, xp=xp, negative=negative)


def weights_after(rule: Rule, connections: Connections, old: Array, updated: Updated, *, xp: Namespace) -> Array:
    """The weights of one layer after an update.

    Args:
        rule: the rule, which gives the weights of grown connections.
        connections: the connections before the update; with shadow weights, their weights inside and outside the mask.
        old: the flat mask before the update.
        updated: the result of `move_pool` for this layer.
        xp: the arrays' namespace.

    Returns:
        Flat array; exactly 0 outside the new mask.
    """
    weight, zeros = connections.weight, xp.zeros_like(connections.weight)
    if rule.shadow:
        return xp.where(updated.mask, weight, zeros)
    grown = xp.where(updated.mask & ~old, rule.grown.values(connections, xp), zeros)
    return xp.where(updated.survivors, weight, grown)
