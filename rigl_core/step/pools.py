"""What the layers of a pool know, and how several layers choose together (contract: M3, M5, T6)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from rigl_core.arrays import sharing, topology
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace, add, count
from rigl_core.parts.slices import slices_as_groups
from rigl_core.parts.units import connections_of, relative
from rigl_core.plan import Counts
from rigl_core.recipe.rule import Rule


def as_one_layer(
    rule: Rule, pool: Sequence[Connections], masks: Sequence[Array], counts: Counts, xp: Namespace
) -> list[tuple[Array, Array]]:
    """New masks and kept connections of layers that choose as one; among equals the earlier layer is first (M3)."""
    scores = [both_scores(rule, connections, xp) for connections in pool]
    drop_scores = join([drop for drop, _ in scores], xp)
    mask, informed = xp.concat(list(masks)), _of_connections(_informed(rule, pool, masks, xp), masks, xp)
    grow_scores = None
    if rule.grow is not None:
        grow_scores = join([grow for _, grow in scores], xp)
        grow_scores = xp.where(informed, grow_scores, xp.full_like(grow_scores, -1))
    moving, stay = mask & informed, mask & ~informed
    keep, grow = _counts_beside(moving, stay, counts, xp)
    new, kept = topology.updated_mask(drop_scores, grow_scores, moving, keep, grow, xp=xp)
    return list(zip(split(new | stay, masks, xp), split(kept | stay, masks, xp), strict=True))


def _informed(rule: Rule, pool: Sequence[Connections], masks: Sequence[Array], xp: Namespace) -> list[Array]:
    """Whether each layer of a pool has information: bool arrays with one entry."""
    return [has_information(rule, connections, mask, xp) for connections, mask in zip(pool, masks, strict=True)]


def _of_connections(informed: Sequence[Array], masks: Sequence[Array], xp: Namespace) -> Array:
    """What is known of each layer, for each connection of a pool: one bool array."""
    return xp.concat([(mask | ~mask) & own for own, mask in zip(informed, masks, strict=True)])


def _counts_beside(moving: Array, stay: Array, counts: Counts, xp: Namespace) -> tuple[Array, Array]:
    """The connections that layers with information keep and grow, while those of other layers stay.

    They drop and grow their share of the pool's numbers, in proportion to the active connections.
    """
    active = xp.concat([count(moving, xp=xp), count(stay, xp=xp)])
    weights = _sharing_weights(active, moving.shape[0], xp)
    dropped, grown = (
        sharing.in_proportion(array_of(number, active, xp), weights, xp=xp)[:1]
        for number in (add(active, xp=xp) - counts.keep, counts.grow)
    )
    keep = active[:1] - dropped
    return xp.where(keep > 0, keep, keep * 0), grown


def redistributed(
    rule: Rule, pool: Sequence[Connections], masks: Sequence[Array], counts: Counts, xp: Namespace
) -> list[tuple[Array, Array]]:
    """New masks and kept connections of layers that share the growth of an update (M5)."""
    scores = [both_scores(rule, connections, xp) for connections in pool]
    active = xp.concat([count(mask, xp=xp) for mask in masks])
    of_layers = _informed(rule, pool, masks, xp)
    informed = xp.concat(of_layers)
    if rule.scope == "global":
        joined, mask = join([drop for drop, _ in scores], xp), xp.concat(list(masks))
        moving = mask & _of_connections(of_layers, masks, xp)
        keep_moving, grow = _counts_beside(moving, mask & ~moving, counts, xp)
        kept = topology.kept_mask(joined, moving, keep_moving, xp=xp)
        keep = xp.concat([count(mask, xp=xp) for mask in split(kept, masks, xp)])
    else:
        dropped = sharing.share_of(active, counts.digits, xp=xp)
        dropped = xp.where(informed, dropped, xp.zeros_like(dropped))
        keep, grow = active - dropped, add(dropped, xp=xp)
    keep = xp.where(informed, keep, active)
    room = xp.concat([count(~mask, xp=xp) for mask in masks]) + active - keep
    room = xp.where(informed, room, xp.zeros_like(room))
    weights = _weights_of_layers(rule, [grow for _, grow in scores], masks, keep, xp)
    shares = sharing.within_room(array_of(grow, room, xp), weights, room, xp=xp)
    return [
        # After a global choice too, a layer keeps its own keep[i] best connections.
        topology.updated_mask(*scores[i], masks[i], keep[i], shares[i], xp=xp)
        for i in range(len(pool))
    ]


def _weights_of_layers(
    rule: Rule, grow_scores: Sequence[Array], masks: Sequence[Array], keep: Array, xp: Namespace
) -> Array:
    """The weights in proportion to which the layers share the growth."""
    if rule.redistribution == "mean_score":
        return sharing.mean_scores(list(grow_scores), list(masks), xp=xp)
    return _sharing_weights(keep, sum(math.prod(mask.shape) for mask in masks), xp)


def _sharing_weights(numbers: Array, size: int, xp: Namespace) -> Array:
    """Numbers of connections in layers of this total size, without last bits if they are too large to share by."""
    return xp.bitwise_right_shift(numbers, max(size.bit_length() - sharing.MOST.bit_length() + 1, 0))


def has_information(rule: Rule, connections: Connections, mask: Array, xp: Namespace) -> Array:
    """Whether a layer's gradient, as far as the rule reads it, is not 0 everywhere (T4, T6).

    Returns:
        Bool array with one entry; or, in a layer with slices, with what is known of its slice for each connection.
    """
    seen = topology.magnitude(connections.gradient, xp=xp) > 0
    seen = seen if rule.sees_inactive else xp.logical_and(seen, mask)
    layer = connections.layer
    if layer is None or layer.slices == 1:
        return count(seen, xp=xp) > 0
    own = slices_as_groups(layer)
    seen = own.mask_by_unit(seen, xp=xp)
    return own.mask_by_weight((seen | ~seen) & (count(seen, xp=xp) > 0), xp=xp)


def both_scores(rule: Rule, connections: Connections, xp: Namespace) -> tuple[Array, Array | None]:
    """The drop scores and the grow scores of all connections; None in place of grow scores if nothing grows."""
    drop_scores = rule.drop.score(connections.for_dropping, xp)
    if rule.grow is None:
        return drop_scores, None
    grow_scores = rule.grow.score(connections, xp)
    if rule.grow.compared_within is not None:
        assert connections.layer is not None
        groups = connections_of(rule.grow.compared_within, connections.layer, "grow")
        grow_scores = relative(grow_scores, groups, xp=xp)
    return drop_scores, grow_scores


def join(arrays: Sequence[Array], xp: Namespace) -> Array:
    """The flat arrays of several layers as one, wide enough for all of them."""
    return xp.concat([xp.widen(array) for array in arrays])


def split(joined: Array, like: Sequence[Array], xp: Namespace) -> list[Array]:
    """The arrays of the layers out of a joined one; ``like`` has arrays of their shapes."""
    ends = [0, *itertools.accumulate(math.prod(array.shape) for array in like)]
    parts = [joined[start:end] for start, end in itertools.pairwise(ends)]
    return [xp.reshape(part, tuple(array.shape)) for part, array in zip(parts, like, strict=True)]


def array_of(number: Array | int, like: Array, xp: Namespace) -> Array:
    """A number as an int32 array with one entry, on the device of ``like``."""
    return add(like, xp=xp) * 0 + number
