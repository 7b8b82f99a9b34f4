"""One update of a pool of layers: what every method of `rigl_core.methods` does, whatever its parts.

A pool is a single layer, or several that share what they drop or grow (`rigl_core.Plan.pools`). Everything here
can be traced; arrays are flat.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from rigl_core.arrays import sharing, topology
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace
from rigl_core.parts.structures import Arrangement
from rigl_core.recipe import Recipe
from rigl_core.step import selection
from rigl_core.step.scoring import scores_of


@dataclass(frozen=True)
class Counts:
    """How many connections of a pool an update keeps and grows (a row of the plan's tables).

    Attributes:
        keep: of a pool; where connections are chosen in groups, of each group.
        grow: the same.
        digits: int32 decimals of the drop fraction, for pools whose layers change their size; else None.
    """

    keep: Array | int
    grow: Array | int
    digits: Array = None


@dataclass(frozen=True)
class Moved:
    """One layer after an update.

    Attributes:
        mask: flat, the new topology.
        survivors: flat, the connections that keep their weight and optimizer state.
    """

    mask: Array
    survivors: Array


def initial_masks(
    recipe: Recipe, pool: Sequence[Connections], active: Sequence[Array | int], *, xp: Namespace
) -> list[Array]:
    """The flat masks of a pool's layers before the first step.

    Each layer has its planned number of largest scores; but if the recipe chooses globally, and by more than chance,
    the layers have theirs together.

    Args:
        recipe: whose ``initial`` chooses.
        pool: the connections of each layer.
        active: the planned number of each (`rigl_core.Plan.initial_active`).
    """
    scores = [recipe.initial.score(connections, xp) for connections in pool]
    if recipe.scope == "global" and not recipe.initial.reads_random and len(pool) > 1:
        return _chosen_together(scores, [values == values for values in scores], sum(active), xp)
    return [
        _initial_mask(values, arrangement_of(recipe, connections), count, xp)
        for values, connections, count in zip(scores, pool, active, strict=True)
    ]


def _initial_mask(scores: Array, arrangement: Arrangement | None, active: Array | int, xp: Namespace) -> Array:
    if arrangement is None:
        return topology.top_k_mask(scores, active, xp=xp)
    of_each = active // (arrangement.groups * arrangement.unit)
    return arrangement.of_weights(topology.top_k_mask(arrangement.of_units(scores, xp=xp), of_each, xp=xp), xp=xp)


def move_pool(
    recipe: Recipe, pool: Sequence[Connections], masks: Sequence[Array], counts: Counts, *, xp: Namespace
) -> list[Moved]:
    """The layers of a pool after one update.

    Args:
        recipe: whose criteria choose.
        pool: the connections of each layer.
        masks: the current topology of each.
        counts: of this update.

    Returns:
        One for each layer, in their order.
    """
    if len(pool) == 1 and recipe.redistribution is None:
        on_host = _moved_on_host(recipe, pool[0], masks[0], counts, xp)
        new = [on_host if on_host is not None else _moved_alone(recipe, pool[0], masks[0], counts, xp)]
    else:
        new = _moved_together(recipe, pool, masks, counts, xp)
    keeps = recipe.regrown == "keep"
    both = getattr(xp, "both", operator.and_)
    return [Moved(mask, both(mask, old) if keeps else kept) for old, (mask, kept) in zip(masks, new, strict=True)]


def arrangement_of(recipe: Recipe, connections: Connections) -> Arrangement | None:
    """How connections of this layer are chosen in groups; None if freely."""
    return None if connections.layer is None else recipe.structure.arrangement(connections.layer)


def chooses_freely(recipe: Recipe, connections: Connections) -> bool:
    """Whether a layer on its own keeps its best scores and grows the best others: its new mask is then all."""
    simple = not (recipe.drop.by_sign or recipe.drop.drops_zeros) and recipe.regrown == "keep"
    return simple and recipe.redistribution is None and arrangement_of(recipe, connections) is None


def _moved_on_host(
    recipe: Recipe, connections: Connections, mask: Array, counts: Counts, xp: Namespace
) -> tuple[Array, Array] | None:
    """The same by `rigl_core.step.selection`, where NumPy can work on the arrays and only the new mask is asked for."""
    if (on_host := getattr(xp, "on_host", None)) is None or not chooses_freely(recipe, connections):
        return None
    arrays = connections.arrays
    like = connections.with_arrays(range(len(arrays)))  # keeps no tracer alive
    new = on_host(functools.partial(_select, recipe, like), mask, counts.keep, counts.grow, *arrays)
    return None if new is None else (new, new)


def _select(recipe: Recipe, like: Connections, mask: Array, keep: Array, grow: Array, *arrays: Array) -> Array:
    """The new mask, in NumPy; ``arrays`` are the connections', of the same fields as ``like``."""
    connections = like.with_arrays(arrays)
    dropping = connections.for_dropping
    if not recipe.drop.reads_gradient:
        dropping = dropping.replace(gradient=None)  # parts of it would be taken for nothing
    drop_scores = scores_of(recipe.drop, dropping)
    grow_scores = None if recipe.grow is None else scores_of(recipe.grow, connections)
    return selection.updated_mask(drop_scores, grow_scores, mask, int(keep), int(grow))


def _moved_alone(
    recipe: Recipe, connections: Connections, mask: Array, counts: Counts, xp: Namespace
) -> tuple[Array, Array]:
    """The new mask, and what of the old one was kept."""
    arrangement = arrangement_of(recipe, connections)
    drop_scores = recipe.drop.score(connections.for_dropping, xp)
    grow_scores = None if recipe.grow is None else recipe.grow.score(connections, xp)
    keep, grow = counts.keep, counts.grow
    if arrangement is not None:
        mask = arrangement.any_of_units(mask, xp=xp)
        drop_scores = arrangement.of_units(drop_scores, xp=xp)
        grow_scores = None if grow_scores is None else arrangement.of_units(grow_scores, xp=xp)
    if recipe.drop.drops_zeros:
        active, keep = xp.count(mask), xp.count(mask & (drop_scores > 0))
        grow = active - keep
    if recipe.drop.by_sign:
        kept = _kept_by_sign(drop_scores, connections.weight, mask, keep, xp)
    else:
        kept = topology.kept_mask(drop_scores, mask, keep, xp=xp)
    new = kept if grow_scores is None else kept | topology.grown_mask(grow_scores, kept, grow, xp=xp)
    if arrangement is not None:
        kept, new = (arrangement.of_weights(chosen, xp=xp) for chosen in (kept, new))
    return new, kept


def _kept_by_sign(scores: Array, weight: Array, mask: Array, keep: Array | int, xp: Namespace) -> Array:
    """Of positive and negative weights the same share; zeros count as positive, and so go first among these."""
    negative = mask & (topology.normal(weight, xp=xp) < 0)
    positive = mask & ~negative
    both = xp.concat([xp.count(positive), xp.count(negative)])
    kept = sharing.in_proportion(xp.count(mask) * 0 + keep, both, xp=xp)
    return topology.kept_mask(scores, positive, kept[0], xp=xp) | topology.kept_mask(scores, negative, kept[1], xp=xp)


def _moved_together(
    recipe: Recipe, pool: Sequence[Connections], masks: Sequence[Array], counts: Counts, xp: Namespace
) -> list[tuple[Array, Array]]:
    drop_scores = [recipe.drop.score(connections.for_dropping, xp) for connections in pool]
    if recipe.scope == "global":
        kept = _chosen_together(drop_scores, masks, counts.keep, xp)
        grow = counts.grow
    else:
        active = xp.concat([xp.count(mask) for mask in masks])
        dropped = sharing.share_of(active, counts.digits, xp=xp)
        kept = [
            topology.kept_mask(scores, mask, (active - dropped)[i], xp=xp)
            for i, (scores, mask) in enumerate(zip(drop_scores, masks, strict=True))
        ]
        grow = xp.count(dropped)
    if recipe.grow is None:
        return [(mask, mask) for mask in kept]
    grow_scores = [recipe.grow.score(connections, xp) for connections in pool]
    if recipe.redistribution is None:
        grown = _chosen_together(grow_scores, [~mask for mask in kept], grow, xp)
    else:
        shares = _shares(recipe, grow_scores, masks, kept, grow, xp)
        grown = [
            topology.grown_mask(scores, mask, shares[i], xp=xp)
            for i, (scores, mask) in enumerate(zip(grow_scores, kept, strict=True))
        ]
    return [(old | new, old) for old, new in zip(kept, grown, strict=True)]


def _chosen_together(
    scores: Sequence[Array], eligible: Sequence[Array], count: Array | int, xp: Namespace
) -> list[Array]:
    """The largest scores of all layers, chosen as in one long layer: an earlier layer's go first among equals."""
    chosen = topology.kept_mask(xp.concat([xp.widen(x) for x in scores]), xp.concat(list(eligible)), count, xp=xp)
    ends = [0]
    for mask in eligible:
        ends.append(ends[-1] + mask.shape[0])
    return [chosen[start:end] for start, end in itertools.pairwise(ends)]


def _shares(
    recipe: Recipe,
    grow_scores: Sequence[Array],
    masks: Sequence[Array],
    kept: Sequence[Array],
    grow: Array | int,
    xp: Namespace,
) -> Array:
    """How many connections each layer grows."""
    survivors = xp.concat([xp.count(mask) for mask in kept])
    room = xp.concat([xp.count(~mask) for mask in kept])
    if recipe.redistribution == "survivors":
        size = sum(mask.shape[0] for mask in masks)
        weights = xp.shift_right(survivors, max(size.bit_length() - sharing.MOST.bit_length() + 1, 0))
    else:
        weights = sharing.mean_scores(list(grow_scores), list(masks), xp=xp)
    return sharing.within_room(xp.count(room) * 0 + grow, weights, room, xp=xp)


def weights_after(recipe: Recipe, connections: Connections, old: Array, moved: Moved, *, xp: Namespace) -> Array:
    """The weights of one layer after an update.

    Args:
        recipe: which says what grown connections start with.
        connections: as before the update; with weights that learn outside the mask, the whole ones.
        old: the flat mask before.
        moved: what `move_pool` gave.

    Returns:
        Flat; exactly 0 outside the new mask.
    """
    weight = connections.weight
    zeros = xp.zeros_like(weight)
    if "shadow" in recipe.memories:
        return xp.where(moved.mask, weight, zeros)
    return xp.where(moved.survivors, weight, xp.where(moved.mask & ~old, recipe.grown.values(connections, xp), zeros))
