"""A slow implementation of every method after the contract, to compare `rigl_core.step.update` with.

It never calls the core's own arithmetic. It uses lists, sets, sorting and fractions, and floating numbers of the
layers' precision only for scores that are such numbers by the contract.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from rigl_core.recipe import Recipe
from rigl_core.testing import floor_oracle, oracle, score_oracle
from rigl_core.testing.group_oracle import groups_of, slices_of, unit_score
from rigl_core.testing.neuron_oracle import fewer_neurons
from rigl_core.testing.score_oracle import LayerState


def update(
    recipe: Recipe, pools: Sequence[Sequence[LayerState]], fraction: str, number: int
) -> dict[str, tuple[set[int], set[int]]]:
    """The flat positions that are active after an update, and those that it kept, by layer name.

    Args:
        recipe: the method.
        pools: the layers before the update; those of a pool choose together.
        fraction: the drop fraction, as text with 12 decimals.
        number: the update's number.
    """
    moved = {}
    for pool in pools:
        together = len(pool) > 1 or recipe.redistribution is not None
        results = _together(recipe, pool, fraction, number) if together else [_alone(recipe, pool[0], fraction, number)]
        moved.update({state.layer.name: result for state, result in zip(pool, results, strict=True)})
    return moved


def _alone(recipe: Recipe, state: LayerState, fraction: str, number: int) -> tuple[set[int], set[int]]:
    drop, grow = score_oracle.drop_and_grow(recipe, state, number)
    groups = groups_of(recipe, state.layer)
    of_each = len(groups) * len(groups[0][0]) if groups and groups[0] else 1
    target = state.target // of_each
    moves = math.floor(Fraction(fraction) * target) if recipe.grow is not None else 0
    slices = slices_of(state.layer)
    if recipe.gamma_sal is not None:
        if not has_information(recipe, state):
            return state.mask, state.mask
        neurons = [[unit[0] for unit in group] for group in groups]
        return fewer_neurons(drop, grow, state.mask, neurons, target, moves, recipe.gamma_sal)
    kept = {i for own in slices if not has_information(recipe, state, own) for i in own & state.mask}
    new = set(kept)
    for group in groups:
        if has_information(recipe, state, next(own for own in slices if group[0][0] in own)):
            stay, grown = _in_group(recipe, state, group, (drop, grow), (target, moves))
            kept |= stay
            new |= stay | grown
    return new, kept


def _in_group(
    recipe: Recipe,
    state: LayerState,
    group: Sequence[tuple[int, ...]],
    scores: tuple[Sequence[float], Sequence[float]],
    numbers: tuple[int, int],
) -> tuple[set[int], set[int]]:
    """The positions that a group keeps and grows; ``numbers`` are its planned count, and how many of these it moves."""
    target, moves = numbers
    drop_of, grow_of = (
        [unit_score(criterion.name, own, unit, state.real) for unit in group] if criterion is not None else []
        for criterion, own in zip((recipe.drop, recipe.grow), scores, strict=True)
    )
    active = [i for i, unit in enumerate(group) if unit[0] in state.mask]
    if recipe.floor:
        stay = floor_oracle.with_floor(drop_of, active, target - moves, recipe.floor, state.layer)
        grown = floor_oracle.floor_grown(grow_of, stay, moves, recipe.floor, state.layer) if grow_of else set()
        return stay, grown
    stay = _staying(recipe, state, drop_of, active, target - moves)
    grows = len(active) - len(stay) if recipe.drop.drops_zeros else moves
    others = [i for i in range(len(group)) if i not in stay]
    grown = oracle.largest(grow_of, others, grows) if grow_of else set()
    kept, new = ({position for i in chosen for position in group[i]} for chosen in (stay, grown))
    return kept, new


def _staying(recipe: Recipe, state: LayerState, scores: Sequence[float], active: Sequence[int], keep: int) -> set[int]:
    if recipe.drop.drops_zeros:
        return {i for i in active if scores[i] > 0}
    if recipe.drop.by_sign:
        negative = [i for i in active if state.weight[i] < 0 and oracle.magnitude(state.weight[i], state.dtype) > 0]
        positive = [i for i in active if i not in negative]
        counts = in_proportion(keep, [len(positive), len(negative)])
        return oracle.largest(scores, positive, counts[0]) | oracle.largest(scores, negative, counts[1])
    return oracle.largest(scores, active, keep)


def _together(
    recipe: Recipe, pool: Sequence[LayerState], fraction: str, number: int
) -> list[tuple[set[int], set[int]]]:
    scores = [score_oracle.drop_and_grow(recipe, state, number) for state in pool]
    drops, grows = [drop for drop, _ in scores], [grow for _, grow in scores]
    masks, informed = [state.mask for state in pool], [has_information(recipe, state) for state in pool]
    kept, moves = _kept_together(recipe, pool, drops, informed, fraction)
    if recipe.grow is None:
        return [(mask, mask) for mask in kept]
    places = [set(state.everything) if knows else set() for state, knows in zip(pool, informed, strict=True)]
    others = [own - mask for own, mask in zip(places, kept, strict=True)]
    if recipe.redistribution is None:
        grown = _largest_of_all(grows, others, moves)
    else:
        by_survivors = recipe.redistribution == "survivors"
        weights = [len(mask) for mask in kept] if by_survivors else mean_scores(grows, masks)
        counts = within_room(moves, weights, [len(room) for room in others])
        grown = [
            oracle.largest(grow, sorted(room), count) for grow, room, count in zip(grows, others, counts, strict=True)
        ]
    return [(old | new, old) for old, new in zip(kept, grown, strict=True)]


def _kept_together(
    recipe: Recipe,
    pool: Sequence[LayerState],
    scores: Sequence[Sequence[float]],
    informed: Sequence[bool],
    fraction: str,
) -> tuple[list[set[int]], int]:
    """The connections that the layers of a pool keep, and how many they grow together."""
    masks = [state.mask for state in pool]
    if recipe.scope == "global":
        target = sum(state.target for state in pool)
        moves = math.floor(Fraction(fraction) * target) if recipe.grow is not None else 0
        moving = [mask if knows else set() for mask, knows in zip(masks, informed, strict=True)]
        active, everything = (sum(map(len, own)) for own in (moving, masks))
        fewer, grown = (
            in_proportion(n, [active, everything - active])[0] for n in (everything - target + moves, moves)
        )
        best = _largest_of_all(scores, moving, max(active - fewer, 0))
        return [own if knows else mask for own, mask, knows in zip(best, masks, informed, strict=True)], grown
    layers = list(zip(scores, masks, informed, strict=True))
    dropped = [math.floor(Fraction(fraction) * len(mask)) if knows else 0 for _, mask, knows in layers]
    kept = [oracle.largest(own, sorted(mask), len(mask) - k) for (own, mask, _), k in zip(layers, dropped, strict=True)]
    return kept, sum(dropped)


def has_information(recipe: Recipe, state: LayerState, among: set[int] | None = None) -> bool:
    """Whether the gradient of a layer, or of some positions, as far as the method sees it, is not 0 everywhere (T6)."""
    of_all = recipe.grown.kind == "gradient_step" or recipe.shadow
    for criterion in (recipe.drop, recipe.grow):
        of_all = of_all or (criterion is not None and criterion.reads_momentum)
    of_all = of_all or (recipe.grow is not None and recipe.grow.reads_gradient)
    seen = state.everything if of_all else state.mask
    return any(oracle.magnitude(state.gradient[i], state.dtype) for i in seen if among is None or i in among)


def _largest_of_all(scores: Sequence[Sequence[float]], among: Sequence[set[int]], count: int) -> list[set[int]]:
    pairs = [(layer, i) for layer, eligible in enumerate(among) for i in sorted(eligible)]
    best = sorted(pairs, key=lambda pair: (-scores[pair[0]][pair[1]], pair))[:count]
    return [{i for layer, i in best if layer == number} for number in range(len(scores))]


def in_proportion(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` shared by largest remainder, the earlier first among equals; weights that are all 0 count as equal."""
    whole = [w if any(weights) else 1 for w in weights]
    shares = [Fraction(total * w, sum(whole)) for w in whole]
    counts = [math.floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def within_room(total: int, weights: Sequence[int], room: Sequence[int]) -> list[int]:
    """``total`` shared in three rounds, in proportion among the places with room left; then one place after another."""
    given = [0] * len(room)
    for _ in range(3):
        shares = in_proportion(
            total - sum(given), [w if g < r else 0 for w, g, r in zip(weights, given, room, strict=True)]
        )
        given = [min(g + share, r) for g, share, r in zip(given, shares, room, strict=True)]
    for i, most in enumerate(room):
        given[i] += min(total - sum(given), most - given[i])
    return given


def mean_scores(scores: Sequence[Sequence[float]], masks: Sequence[set[int]]) -> list[int]:
    """The mean score of each layer's active connections, in 20 bits; scores are first cut to 16 bits.

    With more than 128 layers, means have fewer bits, so that their sum stays below 2**27.
    """
    finite = [
        [x for i, x in enumerate(own) if i in mask and math.isfinite(x)]
        for own, mask in zip(scores, masks, strict=True)
    ]
    largest = max((x for own in finite for x in own), default=0.0)
    scale = Fraction(2) ** (15 - math.frexp(largest)[1] + 1) if largest else Fraction(1)
    fewer = next(bits for bits in range(32) if len(scores) <= 2 ** (7 + bits))
    return [
        16 * sum(math.floor(Fraction(x) * scale) for x in own) // max(len(mask), 1) // 2**fewer
        for own, mask in zip(finite, masks, strict=True)
    ]


def as_sets(masks: Mapping[str, Any]) -> dict[str, set[int]]:
    """The flat positions that are active, by layer name."""
    return {name: set(np.flatnonzero(np.asarray(mask).reshape(-1)).tolist()) for name, mask in masks.items()}
