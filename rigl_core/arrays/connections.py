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
    """Flat arrays of one length, with one entry for each connection; None for an array that the rule does not need.

    Attributes:
        weight: the weights.
        gradient: the dense gradient.
        indices: int32 flat indices of the connections, in C order of the framework's own array.
        random_key: the key of this layer and update (see `rigl_core.arrays.random`).
        momentum: the momentum of the dense gradient (see `rigl_core.arrays.memory`).
        sign: 1 or -1, the sign that each connection got when it became active.
        initial: the weights before the training, before they were masked.
        scores: the scores that the user gave for the initial topology.
        layer: the layer of these connections; structured topologies read its shape and axes.
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
        """These connections with their two keys swapped, so that dropping and growing draw different random numbers."""
        return self if self.random_key is None else self.replace(random_key=self.random_key[::-1])

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays that are not None, in the order of the fields, and then the two keys, if there are keys."""
        own = [array for name in _ARRAYS if (array := getattr(self, name)) is not None]
        return (*own, *(self.random_key or ()))

    def with_arrays(self, arrays: Sequence[Array]) -> Connections:
        """Connections with the same fields, filled with other arrays, which stand in the order of `arrays`."""
        left = iter(arrays)
        own = {name: next(left) for name in _ARRAYS if getattr(self, name) is not None}
        key = None if self.random_key is None else (next(left), next(left))
        return self.replace(**own, random_key=key)

    def __getitem__(self, part: Any) -> Connections:
        """Some of these connections.

        Args:
            part: a slice, or an array of positions if the library's arrays take such an index.
        """
        own = {name: array[part] for name in _ARRAYS if (array := getattr(self, name)) is not None}
        return self.replace(**own)

    def replace(self, **fields: Any) -> Connections:
        """A copy with some fields changed: `dataclasses.replace` in a quarter of its time."""
        return Connections(**(vars(self) | fields))
