"""The memory of a method: arrays that it keeps for each connection besides the weight and the optimizer's state.

An adapter keeps one flat array for each layer and for each kind that the recipe needs (`Rule.memories`): ``momentum``
and ``sign`` for criteria, ``initial`` for grown weights, ``shadow`` for weights that go on learning while inactive.
Checkpoints save and restore these arrays like the masks.
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
    """The memory of one layer before the first step, by kind; flat arrays.

    Args:
        kinds: the kinds of memory to make, of `KINDS`.
        connections: the weights before they were masked; for ``sign`` also indices and a random key.
        mask: flat bool array, the initial topology.
        xp: the arrays' namespace.
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
    """The memory after the dense gradient of one step.

    The momentum becomes decay * momentum + (1 - decay) * gradient (Dettmers & Zettlemoyer 2019, section 3), in float32
    or more. Each product is rounded before the sum, so that the momentum is the same in every framework. Gradients that
    are not finite count as 0, so that the momentum recovers from an overflow.
    """
    if "momentum" not in memory:
        return dict(memory)
    gradient = xp.widen(gradient)
    gradient = xp.where(xp.abs(gradient) < math.inf, gradient, xp.zeros_like(gradient))
    old, new = (normal(x, xp=xp) for x in (memory["momentum"] * decay, gradient * (1 - decay)))
    return {**memory, "momentum": normal(old + new, xp=xp)}


def whole_weight(weight: Array, memory: Mapping[str, Array], mask: Array, *, xp: Namespace) -> Array:
    """The weights inside the mask and, if the memory has a shadow, the shadow weights outside it."""
    return xp.where(mask, weight, memory["shadow"]) if "shadow" in memory else weight


def memory_after(
    memory: Mapping[str, Array], connections: Connections, mask: Array, survivors: Array, *, xp: Namespace
) -> dict[str, Array]:
    """The memory after an update. Adapters also call it after other steps, if weights outside the mask learn.

    Args:
        memory: the memory before the update.
        connections: the weights inside and outside the mask (`whole_weight`); for ``sign`` also indices and the
            update's random key.
        mask: flat bool array, the topology after the update.
        survivors: flat bool array, the survivors of the update; the mask itself if the step had no update.
        xp: the arrays' namespace.
    """
    after = dict(memory)
    if "shadow" in memory:
        after["shadow"] = xp.where(mask, xp.zeros_like(connections.weight), connections.weight)
    if "sign" in memory:  # a grown connection draws a new sign (Deep R: Bellec et al. 2018, algorithm 1)
        after["sign"] = xp.where(mask & ~survivors, _random_signs(connections, xp), memory["sign"])
    return after


def _signs(connections: Connections, xp: Namespace) -> Array:
    """The sign of each weight, 1 or -1; a zero gets a random sign."""
    weight, one = normal(connections.weight, xp=xp), xp.full_like(connections.weight, 1)
    own = xp.where(weight < 0, xp.full_like(one, -1), one)
    return xp.where(weight == 0, _random_signs(connections, xp), own)


def _random_signs(connections: Connections, xp: Namespace) -> Array:
    assert connections.random_key is not None
    first, second = connections.random_key
    heads = random_scores((second, first), connections.indices, xp=xp) & 1
    one = xp.full_like(connections.weight, 1)
    return xp.where(heads == 1, one, xp.full_like(one, -1))
