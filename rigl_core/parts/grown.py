"""The weights that grown connections start with. Their optimizer state always starts at 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Array, Namespace
from rigl_core.arrays.random import random_scores
from rigl_core.arrays.topology import normal
from rigl_core.model.numbers import decimal


@runtime_checkable
class GrownWeights(Protocol):
    """The members that an update reads."""

    @property
    def kind(self) -> str:
        """The name in saved recipes."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the arrays of `Connections` that it needs besides the weights."""

    def values(self, connections: Connections, xp: Namespace) -> Array:
        """A value for every connection, flat, in the dtype of the weights.

        The update uses the values of connections that are active now and were not before.
        """


@dataclass(frozen=True)
class Zeros:
    """0, so that growing does not change what the network computes (RigL paper, section 3 (4))."""

    kind: ClassVar[str] = "zeros"
    reads: ClassVar[tuple[str, ...]] = ()

    def values(self, connections: Connections, xp: Namespace) -> Array:
        return xp.zeros_like(connections.weight)


@dataclass(frozen=True)
class InitialValues:
    """The weight that the training started from, before it was masked (Frankle & Carbin 2019 rewind to it)."""

    kind: ClassVar[str] = "initial"
    reads: ClassVar[tuple[str, ...]] = ("initial",)

    def values(self, connections: Connections, xp: Namespace) -> Array:
        return connections.initial


@dataclass(frozen=True)
class SmallRandom:
    """Uniform in [-scale, scale), from seed, layer, update and index (SET: Mocanu et al. 2018, algorithm 1)."""

    kind: ClassVar[str] = "random"
    reads: ClassVar[tuple[str, ...]] = ("indices",)
    scale: float = 0.01

    def __post_init__(self) -> None:
        _check_positive("scale", self)

    def values(self, connections: Connections, xp: Namespace) -> Array:
        assert connections.random_key is not None
        first, second = connections.random_key
        # 24 of the 31 random bits: float32 holds them exactly. The swapped key differs from the key of growth scores.
        whole = xp.bitwise_right_shift(random_scores((second, first), connections.indices, xp=xp), 7) - 2**23
        numbers = xp.astype(whole, xp.widen(connections.weight).dtype)
        return xp.astype(numbers * (self.scale / 2**23), connections.weight.dtype)


@dataclass(frozen=True)
class GradientStep:
    """-size * gradient: a step of plain gradient descent (compared in the RigL paper's appendix on new connections)."""

    kind: ClassVar[str] = "gradient_step"
    reads: ClassVar[tuple[str, ...]] = ("gradient",)
    size: float = 0.1

    def __post_init__(self) -> None:
        _check_positive("size", self)

    def values(self, connections: Connections, xp: Namespace) -> Array:
        gradient = normal(xp.widen(connections.gradient), xp=xp)
        return xp.astype(normal(gradient * -self.size, xp=xp), connections.weight.dtype)


def _check_positive(field: str, owner: object) -> None:
    number = decimal(getattr(owner, field), field)
    if number <= 0:
        raise ValueError(f"{field} is {getattr(owner, field)}: it must be positive.")
    object.__setattr__(owner, field, float(number))


GROWN_WEIGHTS: Mapping[str, type] = {cls.kind: cls for cls in (Zeros, InitialValues, SmallRandom, GradientStep)}
