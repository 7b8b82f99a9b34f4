"""Criteria: scores of connections, by which an update drops and grows and by which the initial topology is chosen.

A score is never NaN. Scores that drop or grow are at least 0. A criterion looks at connections one by one, so it can
score a whole layer or any subset of it. What `Criterion.compared_within` asks for is done afterwards.
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

Score = Callable[[Connections, Namespace], Array]


@dataclass(frozen=True)
class Criterion:
    """A named score.

    Attributes:
        name: the name in saved recipes.
        score: maps connections to flat scores without NaN, of one dtype; >= 0 for a drop or grow criterion.
        reads_gradient: whether it needs the gradient.
        reads_random: whether it needs indices and a random key.
        reads_momentum: whether it needs the momentum of the dense gradient, which the adapter then keeps.
        reads_sign: whether it needs the sign that a connection got when it became active, which the adapter then keeps.
        reads_scores: whether it needs scores that the user gives to ``sparsify``; only for initial topologies.
        by_sign: a drop by this criterion takes the same share of positive and of negative weights (SET as published).
        drops_zeros: a drop by this criterion takes exactly the connections with score 0, any number of them (Deep R).
        compared_within: scores are divided by the largest score of the same "output" or "input", so that those of
            different units can be compared; only to grow.
        magnitude_of: the array whose magnitude is the score; None if the score is anything else.
        parameter: the number that the criterion was made with, if any.
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
    compared_within: Literal["output", "input"] | None = None
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
    if connections.scores is None:  # every layer is dense, so the scores choose nothing
        return xp.zeros_like(connections.weight)
    return topology.normal(connections.scores, xp=xp)


@dataclass(frozen=True)
class _MagnitudeAndGradient:
    share: float

    def __call__(self, connections: Connections, xp: Namespace) -> Array:
        weight, gradient = (xp.widen(topology.magnitude(x, xp=xp)) for x in (connections.weight, connections.gradient))
        # `magnitude` stands between product and sum, so that compilers cannot fuse them into one rounding.
        return weight + topology.magnitude(gradient * self.share, xp=xp)


MAGNITUDE = Criterion("magnitude", _magnitude, magnitude_of="weight")
"""|weight|: RigL and SET drop the smallest (RigL paper, section 3 (3))."""

GRADIENT = Criterion("gradient", _gradient, reads_gradient=True, magnitude_of="gradient")
"""|dense gradient|: RigL grows the largest (RigL paper, section 3 (4))."""

GRADIENT_BY_OUTPUT = Criterion("gradient_by_output", _gradient, reads_gradient=True, compared_within="output")
"""|dense gradient| / the largest one of the same output: growth does not pile up on few outputs (ours)."""

GRADIENT_BY_INPUT = Criterion("gradient_by_input", _gradient, reads_gradient=True, compared_within="input")
"""|dense gradient| / the largest one of the same input (ours)."""

RANDOM = Criterion("random", _random, reads_random=True)
"""A seeded random score: SET's growth, and random initial topologies."""

MOMENTUM = Criterion("momentum", _momentum, reads_momentum=True, magnitude_of="momentum")
"""|momentum of the dense gradient|: SNFS grows the largest (Dettmers & Zettlemoyer 2019, section 3)."""

SALIENCY = Criterion("saliency", _saliency, reads_gradient=True)
"""|weight * gradient|: how much the loss would change without the connection (SNIP: Lee et al. 2019, equation 5)."""

MAGNITUDE_BY_SIGN = Criterion("magnitude_by_sign", _magnitude, by_sign=True)
"""|weight|, separately for positive and negative weights: the published SET drops the smallest positive and the largest
negative weights (Mocanu et al. 2018, algorithm 1)."""

SIGN = Criterion("sign", _keeps_its_sign, reads_sign=True, drops_zeros=True)
"""1, or 0 if the weight's sign is no longer the one that the connection got when it became active (Deep R: Bellec et
al. 2018, algorithm 1)."""

SCORES = Criterion("scores", _given, reads_scores=True)
"""The scores that the user gives to ``sparsify(..., scores=...)``: GraSP, SynFlow, lottery tickets."""


def magnitude_and_gradient(share: float = 1.0) -> Criterion:
    """|weight| + share * |gradient|: MEST drops the smallest (Yuan et al. 2021, section 3.2).

    Only the gradients of active weights count, so the dense gradient is not needed.

    Args:
        share: weight of the gradient in the score, >= 0.

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
        for criterion in (
            MAGNITUDE,
            GRADIENT,
            GRADIENT_BY_OUTPUT,
            GRADIENT_BY_INPUT,
            RANDOM,
            MOMENTUM,
            SALIENCY,
            MAGNITUDE_BY_SIGN,
            SIGN,
            SCORES,
        )
    },
    "magnitude_and_gradient": magnitude_and_gradient,
}
"""Criteria by name, and functions that make a criterion from a number."""
