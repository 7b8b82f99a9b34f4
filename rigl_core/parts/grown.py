"""What a connection that grows starts with; its optimizer state starts at 0 in any case."""

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
    """What an update asks. Values count for connections that are active now and were not before."""

    @property
    def kind(self) -> str:
        """The name under which it is serialized."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the arrays of `Connections` that it needs besides the weights."""

    def values(self, connections: Connections, xp: Namespace) -> Array:
        """The values of all connections, if they grew, in the dtype of the weights."""


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
    """Uniform in [-scale, scale), by seed, layer, update and index (SET: Mocanu et al. 2018, algorithm 1)."""

    kind: ClassVar[str] = "random"
    reads: ClassVar[tuple[str, ...]] = ("indices",)
    scale: float = 0.01

    def __post_init__(self) -> None:
        _check_positive("scale", self)

    def values(self, connections: Connections, xp: Namespace) -> Array:
        assert connections.random_key is not None
        first, second = connections.random_key
        # Of the 31 random bits 24, which every float of 32 bits holds exactly; another key than the growth's.
        whole = xp.shift_right(random_scores((second, first), connections.indices, xp=xp), 7) - 2**23
        return xp.cast(xp.cast(whole, xp.widen(connections.weight)) * (self.scale / 2**23), connections.weight)


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
        return xp.cast(normal(gradient * -self.size, xp=xp), connections.weight)


def _check_positive(field: str, owner: object) -> None:
    number = decimal(getattr(owner, field), field)
    if number <= 0:
        raise ValueError(f"{field} is {getattr(owner, field)}: it must be positive.")
    object.__setattr__(owner, field, float(number))


GROWN_WEIGHTS: Mapping[str, type] = {cls.kind: cls for cls in (Zeros, InitialValues, SmallRandom, GradientStep)}
