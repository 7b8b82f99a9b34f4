"""Drop and grow criteria: what each connection is worth, as a score without NaN, of at least 0 where it drops or grows.

A criterion looks at connections one by one, so it can score a whole layer or any subset of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from rigl_core.arrays import topology
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace
from rigl_core.arrays.random import random_scores
from rigl_core.model.numbers import decimal

__all__ = ["CRITERIA", "Connections", "Criterion"]

Score = Callable[[Connections, Namespace], Array]


@dataclass(frozen=True)
class Criterion:
    """A named score.

    Attributes:
        name: under which it is serialized.
        score: maps connections to scores without NaN, of one dtype; >= 0, if it is to drop or grow.
        reads_gradient: whether it needs the gradient.
        reads_random: whether it needs indices and a random key.
        reads_momentum: whether it needs the momentum of the dense gradient, which the adapter then keeps.
        reads_sign: whether it needs the sign that a connection was made with, which the adapter then keeps.
        reads_scores: whether it needs scores that the user gives to ``sparsify``; only for initial topologies.
        by_sign: as a drop, it takes the same share of positive and of negative weights (SET as published).
        drops_zeros: as a drop, it takes exactly the connections that score 0, however many (Deep R).
        magnitude_of: of which array of the connections the score is the magnitude and nothing else, if of one.
        parameter: the number, if any, that it was made with.
    """

    name: str
    score: Score
    reads_gradient: bool = False
    reads_random: bool = False
    reads_momentum: bool = False
    reads_sign: bool = False
    reads_scores: bool = False
    by_sign: bool = False
    drops_zeros: bool = False
    magnitude_of: Literal["weight", "gradient", "momentum"] | None = None
    parameter: float | None = None


def _magnitude(connections: Connections, xp: Namespace) -> Array:
    return topology.magnitude(connections.weight, xp=xp)


def _gradient(connections: Connections, xp: Namespace) -> Array:
    return topology.magnitude(connections.gradient, xp=xp)


def _momentum(connections: Connections, xp: Namespace) -> Array:
    return topology.magnitude(connections.momentum, xp=xp)


def _random(connections: Connections, xp: Namespace) -> Array:
    assert connections.random_key is not None
    return random_scores(connections.random_key, connections.indices, xp=xp)


def _saliency(connections: Connections, xp: Namespace) -> Array:
    weight, gradient = (xp.widen(topology.normal(x, xp=xp)) for x in (connections.weight, connections.gradient))
    return topology.magnitude(weight * gradient, xp=xp)


def _keeps_its_sign(connections: Connections, xp: Namespace) -> Array:
    weight, sign = topology.normal(connections.weight, xp=xp), connections.sign
    flipped = ((weight < 0) & (sign > 0)) | ((weight > 0) & (sign < 0))
    return xp.where(flipped, xp.zeros_like(weight), xp.full_like(weight, 1))


def _given(connections: Connections, xp: Namespace) -> Array:
    if connections.scores is None:  # nothing to choose: every layer is dense
        return xp.zeros_like(connections.weight)
    return topology.normal(connections.scores, xp=xp)


@dataclass(frozen=True)
class _MagnitudeAndGradient:
    share: float

    def __call__(self, connections: Connections, xp: Namespace) -> Array:
        weight, gradient = (xp.widen(topology.magnitude(x, xp=xp)) for x in (connections.weight, connections.gradient))
        # The product stands alone, between two roundings: compilers must not fuse it with the sum.
        return weight + topology.magnitude(gradient * self.share, xp=xp)


MAGNITUDE = Criterion("magnitude", _magnitude, magnitude_of="weight")
"""|weight|: RigL and SET drop the smallest (RigL paper, section 3 (3))."""

GRADIENT = Criterion("gradient", _gradient, reads_gradient=True, magnitude_of="gradient")
"""|dense gradient|: RigL grows the largest (RigL paper, section 3 (4))."""

RANDOM = Criterion("random", _random, reads_random=True)
"""A seeded random score: SET's growth, and random initial topologies."""

MOMENTUM = Criterion("momentum", _momentum, reads_momentum=True, magnitude_of="momentum")
"""|momentum of the dense gradient|: SNFS grows the largest (Dettmers & Zettlemoyer 2019, section 3)."""

SALIENCY = Criterion("saliency", _saliency, reads_gradient=True)
"""|weight * gradient|: how much the loss would change without the connection (SNIP: Lee et al. 2019, equation 5)."""

MAGNITUDE_BY_SIGN = Criterion("magnitude_by_sign", _magnitude, by_sign=True)
"""|weight|, among positive and among negative weights: SET's own rule drops the smallest positive and the largest
negative weights (Mocanu et al. 2018, algorithm 1)."""

SIGN = Criterion("sign", _keeps_its_sign, reads_sign=True, drops_zeros=True)
"""1, or 0 once the weight has another sign than it was made with (Deep R: Bellec et al. 2018, algorithm 1)."""

SCORES = Criterion("scores", _given, reads_scores=True)
"""What the user gives to ``sparsify(..., scores=...)``: GraSP, SynFlow, lottery tickets."""


def magnitude_and_gradient(share: float = 1.0) -> Criterion:
    """|weight| + share * |gradient|: MEST drops the smallest (Yuan et al. 2021, section 3.2).

    Only the gradients of active weights count, so the dense gradient is not needed.

    Raises:
        ValueError: if ``share`` is negative.
    """
    if decimal(share, "share") < 0:
        raise ValueError(f"share is {share}: it must be at least 0.")
    share = float(decimal(share, "share"))
    return Criterion("magnitude_and_gradient", _MagnitudeAndGradient(share), reads_gradient=True, parameter=share)


CRITERIA: Mapping[str, Criterion | Callable[[float], Criterion]] = {
    **{
        criterion.name: criterion
        for criterion in (MAGNITUDE, GRADIENT, RANDOM, MOMENTUM, SALIENCY, MAGNITUDE_BY_SIGN, SIGN, SCORES)
    },
    "magnitude_and_gradient": magnitude_and_gradient,
}
"""By name: criteria, and what makes one of a number."""
