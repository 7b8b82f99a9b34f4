"""Drop and grow criteria: what each connection is worth, as a score of at least 0 without NaN.

A criterion looks at connections one by one, so it can score a whole layer or any subset of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rigl_core import topology
from rigl_core.namespace import Array, Namespace
from rigl_core.random import random_scores


@dataclass(frozen=True)
class Connections:
    """Flat arrays over the same connections of one layer; None for what a criterion did not ask for.

    Attributes:
        weight: the weights.
        gradient: the dense gradient.
        indices: int32 flat indices in the framework's own C order.
        random_key: the key of this layer and update (see `rigl_core.random`).
    """

    weight: Array
    gradient: Array = None
    indices: Array = None
    random_key: tuple[Array, Array] | None = None

    @property
    def for_dropping(self) -> Connections:
        """The keys swapped: dropping and growing draw different random numbers."""
        return self if self.random_key is None else replace(self, random_key=self.random_key[::-1])

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All that there is, in a row."""
        fields = (self.weight, self.gradient, self.indices, *(self.random_key or ()))
        return tuple(array for array in fields if array is not None)

    def with_arrays(self, arrays: Sequence[Array]) -> Connections:
        """Others of the same fields, given what `arrays` would be."""
        left = iter(arrays)
        weight, gradient, indices = (
            None if array is None else next(left) for array in (self.weight, self.gradient, self.indices)
        )
        return Connections(weight, gradient, indices, None if self.random_key is None else (next(left), next(left)))

    def __getitem__(self, part: Any) -> Connections:
        """Some of these connections: a slice, or an array of positions where the arrays take one as index."""
        gradient, indices = (None if array is None else array[part] for array in (self.gradient, self.indices))
        return Connections(self.weight[part], gradient, indices, self.random_key)


@dataclass(frozen=True)
class Criterion:
    """A named score.

    Attributes:
        name: under which it is serialized.
        score: maps connections to scores >= 0 without NaN, of one dtype.
        reads_gradient: whether it needs the dense gradient.
        reads_random: whether it needs indices and a random key.
    """

    name: str
    score: Callable[[Connections, Namespace], Array]
    reads_gradient: bool = False
    reads_random: bool = False


def _magnitude(connections: Connections, xp: Namespace) -> Array:
    return topology.magnitude(connections.weight, xp=xp)


def _gradient(connections: Connections, xp: Namespace) -> Array:
    return topology.magnitude(connections.gradient, xp=xp)


def _random(connections: Connections, xp: Namespace) -> Array:
    assert connections.random_key is not None
    return random_scores(connections.random_key, connections.indices, xp=xp)


MAGNITUDE = Criterion("magnitude", _magnitude)
"""|weight|: RigL and SET drop the smallest (RigL paper, section 3 (3))."""

GRADIENT = Criterion("gradient", _gradient, reads_gradient=True)
"""|dense gradient|: RigL grows the largest (RigL paper, section 3 (4))."""

RANDOM = Criterion("random", _random, reads_random=True)
"""A seeded random score: SET's growth, and random initial topologies."""

CRITERIA: Mapping[str, Criterion] = {criterion.name: criterion for criterion in (MAGNITUDE, GRADIENT, RANDOM)}
