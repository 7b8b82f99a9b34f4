"""What a method remembers of each connection besides its weight and the optimizer's state.

An adapter keeps one flat array for each layer and kind that the recipe names (`Recipe.memories`): ``momentum`` and
``sign`` for criteria, ``initial`` for grown weights, ``shadow`` for weights that go on learning while inactive. All
of it is saved and resumed like the masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace
from rigl_core.arrays.random import random_scores
from rigl_core.arrays.topology import normal

KINDS = ("momentum", "sign", "initial", "shadow")


def first_memory(kinds: tuple[str, ...], connections: Connections, mask: Array, *, xp: Namespace) -> dict[str, Array]:
    """The arrays of one layer before the first step.

    Args:
        kinds: those to make.
        connections: with weights as they were before they were masked, and with indices and a key for ``sign``.
        mask: the initial topology, flat.
    """
    weight = connections.weight
    zeros = xp.zeros_like(weight)
    make = {
        "momentum": lambda: xp.zeros_like(xp.widen(weight)),
        "sign": lambda: _signs(connections, xp),
        "initial": lambda: xp.where(mask, weight, weight),  # a copy: some frameworks change weights in place
        "shadow": lambda: xp.where(mask, zeros, weight),
    }
    return {kind: make[kind]() for kind in kinds}


def observe(memory: Mapping[str, Array], gradient: Array, decay: float, *, xp: Namespace) -> dict[str, Array]:
    """What is remembered after a step's dense gradient was seen.

    The momentum is decay * momentum + (1 - decay) * gradient (Dettmers & Zettlemoyer 2019, section 3), in float32 or
    more. Each product is rounded on its own, and what is not finite in a gradient counts as 0, so that it is the same
    everywhere and recovers from an overflow.
    """
    if "momentum" not in memory:
        return dict(memory)
    gradient = xp.widen(gradient)
    gradient = xp.where(xp.abs(gradient) < math.inf, gradient, xp.zeros_like(gradient))
    old, new = (normal(x, xp=xp) for x in (memory["momentum"] * decay, gradient * (1 - decay)))
    return {**memory, "momentum": normal(old + new, xp=xp)}


def whole_weight(weight: Array, memory: Mapping[str, Array], mask: Array, *, xp: Namespace) -> Array:
    """The weights, with those that go on learning outside the mask."""
    return xp.where(mask, weight, memory["shadow"]) if "shadow" in memory else weight


def memory_after(
    memory: Mapping[str, Array], connections: Connections, mask: Array, survivors: Array, *, xp: Namespace
) -> dict[str, Array]:
    """What is remembered after an update, or, of weights outside the mask, after any step.

    Args:
        memory: before.
        connections: with the whole weights; for ``sign`` with indices and the update's key.
        mask: the topology now, flat.
        survivors: of the update; the mask itself if there was none.
    """
    after = dict(memory)
    if "shadow" in memory:
        after["shadow"] = xp.where(mask, xp.zeros_like(connections.weight), connections.weight)
    if "sign" in memory:  # what grew draws a new sign (Deep R: Bellec et al. 2018, algorithm 1)
        after["sign"] = xp.where(mask & ~survivors, _random_signs(connections, xp), memory["sign"])
    return after


def _signs(connections: Connections, xp: Namespace) -> Array:
    """The sign of each weight; of a zero, a random one."""
    weight, one = normal(connections.weight, xp=xp), xp.full_like(connections.weight, 1)
    own = xp.where(weight < 0, xp.full_like(one, -1), one)
    return xp.where(weight == 0, _random_signs(connections, xp), own)


def _random_signs(connections: Connections, xp: Namespace) -> Array:
    assert connections.random_key is not None
    first, second = connections.random_key
    heads = random_scores((second, first), connections.indices, xp=xp) & 1
    one = xp.full_like(connections.weight, 1)
    return xp.where(heads == 1, one, xp.full_like(one, -1))
