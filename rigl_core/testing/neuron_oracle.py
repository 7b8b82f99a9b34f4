"""A slow implementation of updates that take neurons away, after the contract (rule M12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from rigl_core.testing import oracle


def fewer_neurons(
    drop: Sequence[float],
    grow: Sequence[float],
    mask: set[int],
    neurons: Sequence[Sequence[int]],
    fan_in: int,
    moves: int,
    gamma_sal: float,
) -> tuple[set[int], set[int]]:
    """The positions that are active after an update, and those that it kept.

    Args:
        drop: drop scores by position.
        grow: grow scores by position.
        mask: the active positions.
        neurons: the positions of each neuron; among equals, the first one here is first.
        fan_in: the planned number of connections of each neuron.
        moves: how many of these an update moves.
        gamma_sal: the share of ``fan_in`` that must be salient.
    """
    ordered = [i for neuron in neurons for i in neuron]
    active = [i for i in ordered if i in mask]
    best = oracle.largest(drop, active, min(len(active), len(neurons) * (fan_in - moves)))
    salient = best | oracle.largest(grow, [i for i in ordered if i not in best], len(neurons) * moves)

    numbers = [len(salient & set(neuron)) for neuron in neurons]
    enough = sum(number >= math.ceil(Fraction(str(gamma_sal)) * fan_in) for number in numbers)
    left = max(enough, math.ceil(Fraction(len(neurons) * fan_in, len(neurons[0]))))
    stay = oracle.largest(list(map(float, numbers)), range(len(neurons)), left)

    kept: set[int] = set()
    new: set[int] = set()
    for number in stay:
        own, share = neurons[number], len(neurons) * fan_in // left
        here = oracle.largest(drop, [i for i in own if i in best], min(share, len(best & set(own))))
        kept |= here
        new |= here | oracle.largest(grow, [i for i in own if i not in here], share - len(here))
    return new, kept
