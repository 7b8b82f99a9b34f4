"""Connections of one layer, as criteria see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rigl_core.arrays.namespace import Array
from rigl_core.model.layers import Layer

_ARRAYS = ("weight", "gradient", "indices", "momentum", "sign", "initial", "scores")


@dataclass(frozen=True)
class Connections:
    """Flat arrays over the same connections of one layer; None for what nobody asked for.

    Attributes:
        weight: the weights.
        gradient: the dense gradient.
        indices: int32 flat indices in the framework's own C order.
        random_key: the key of this layer and update (see `rigl_core.arrays.random`).
        momentum: of the dense gradient (see `rigl_core.arrays.memory`).
        sign: that each connection was made with, 1 or -1.
        initial: the weights that the training started from, before they were masked.
        scores: what the user gave for the initial topology.
        layer: which layer they are of; structured topologies ask.
    """

    weight: Array
    gradient: Array = None
    indices: Array = None
    random_key: tuple[Array, Array] | None = None
    momentum: Array = None
    sign: Array = None
    initial: Array = None
    scores: Array = None
    layer: Layer | None = None

    @property
    def for_dropping(self) -> Connections:
        """The keys swapped: dropping and growing draw different random numbers."""
        return self if self.random_key is None else self.replace(random_key=self.random_key[::-1])

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All that there is, in a row."""
        own = [array for name in _ARRAYS if (array := getattr(self, name)) is not None]
        return (*own, *(self.random_key or ()))

    def with_arrays(self, arrays: Sequence[Array]) -> Connections:
        """Others of the same fields, given what `arrays` would be."""
        left = iter(arrays)
        own = {name: next(left) for name in _ARRAYS if getattr(self, name) is not None}
        key = None if self.random_key is None else (next(left), next(left))
        return self.replace(**own, random_key=key)

    def __getitem__(self, part: Any) -> Connections:
        """Some of these connections: a slice, or an array of positions where the arrays take one as index."""
        own = {name: array[part] for name in _ARRAYS if (array := getattr(self, name)) is not None}
        return self.replace(**own)

    def replace(self, **fields: Any) -> Connections:
        """Others with these fields: `dataclasses.replace`, at a fourth of the time."""
        return Connections(**(vars(self) | fields))
