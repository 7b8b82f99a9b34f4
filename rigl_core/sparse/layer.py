"""A layer that holds only its active weights, in a sparse training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rigl_core.arrays import numpy_namespace
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.memory import first_memory
from rigl_core.arrays.namespace import Array
from rigl_core.arrays.random import INITIAL, random_key
from rigl_core.model.layers import Layer
from rigl_core.plan import Counts
from rigl_core.recipe import Recipe
from rigl_core.recipe.rule import Rule
from rigl_core.sparse.gradients import Gradient, Whole
from rigl_core.sparse.index import Floats, Index
from rigl_core.sparse.places import Flat
from rigl_core.sparse.update import Found, find
from rigl_core.step import layer as step
from rigl_core.step.workers import Mask, Values


@dataclass(frozen=True)
class Move:
    """How arrays in storage order follow an update.

    Attributes:
        index: the active connections after it.
        stays: in the storage order before, which connections stay.
        is_new: in the storage order after, which connections are new.
    """

    index: Index
    stays: Mask
    is_new: Mask

    def of(self, array: Values, new: Any) -> Values:
        """The array after the update.

        Args:
            array: a number for each active connection before it.
            new: the number of each new connection, or one for all.
        """
        moved = np.empty(self.is_new.size, array.dtype)
        moved[~self.is_new] = array[self.stays]
        moved[self.is_new] = new
        return moved


class ActiveLayer(step.SparseLayer):
    """A layer whose arrays have a number for each active connection, in storage order (`rigl_core.sparse.index`).

    Attributes:
        index: where the active connections are.
    """

    xp = numpy_namespace
    index: Index

    def __init__(self, layer: Layer, recipe: Recipe, index: Index) -> None:
        super().__init__(layer, recipe)
        self.index = index
        self._signs: Values | None = None
        self._found: Found | None = None

    # Where the arrays are.

    @abstractmethod
    def take_move(self, move: Move, weight: Floats) -> None:
        """Take new weights, and let the optimizer's state follow. `index` is still the one before.

        Args:
            move: how the arrays follow.
            weight: the weights after the update.
        """

    def indices(self) -> Flat:
        return self.index.flat()

    @property
    def mask(self) -> Mask:
        return self.index.mask()

    @property
    def active(self) -> int:
        return self.index.size

    @property
    def outside(self) -> int:
        return 0

    @property
    def memory(self) -> dict[str, Array]:
        """As in a layer with a mask; a sign outside the mask is 1, and nothing reads it."""
        return {} if self._signs is None else {"sign": self.index.dense(self._signs, outside=1)}

    @memory.setter
    def memory(self, memory: Mapping[str, Array]) -> None:
        self.take_memory(memory)

    def take_memory(self, memory: Mapping[str, Any]) -> None:
        """Take the memory of a layer with a mask, flat arrays by kind, at the places of this one."""
        self._signs = self.index.values(np.asarray(memory["sign"])) if "sign" in memory else None

    def zero_state_outside(self, mask: Array) -> None:
        """Nothing is outside."""

    def zero_weight_outside(self, mask: Array) -> None:
        """Nothing is outside."""

    def zero_outside(self, values: Array) -> Array:
        return values

    # What a step does.

    def begin(self) -> None:
        """Before the first step: make the memory that the recipe needs."""
        if "sign" in self.rule.memories:
            key = random_key(self._seed, self.layer.name, INITIAL)
            self._signs = _first_signs(self._connections(self.weight, key))

    def resume(self, mask: Array, remembered: dict[str, Array]) -> None:
        self.index = self.index.like(places_in(mask))
        self.memory = remembered

    def prepare(self, update: int, gradient: Gradient | None, counts: Counts) -> bool:
        """Before any layer moves: find the new topology.

        Args:
            update: the update's number.
            gradient: the layer's gradient; None if it was not used.
            counts: the numbers of connections that it keeps and grows.

        Returns:
            Whether all gradients that were read are finite (T5).
        """
        self._found = None if gradient is None else self._find(self.rule, self.random_key(update), gradient, counts)
        return self._found is None or self._found.finite

    def forget(self) -> None:
        """Forget what `prepare` found, since somebody has written the weights."""
        self._found = None

    def move(self, update: int, gradient: Any, counts: Counts) -> None:
        if self._found is None:
            self.prepare(update, gradient, counts)
        found, self._found = self._found, None
        if found is not None:
            self._take(found, self.random_key(update))

    def refit(self, rule: Rule, counts: Counts) -> None:
        key, ones = random_key(self._seed, self.layer.name, INITIAL), np.ones(self.index.size, np.float32)
        self._take(self._find(rule, key, Whole(ones, ones[:0]), counts), key)

    def _find(self, rule: Rule, key: tuple[Any, Any], gradient: Gradient, counts: Counts) -> Found:
        active = Connections(self.weight, gradient.active, self.indices(), key, sign=self._signs)
        return find(rule, active, gradient, counts, self.layer.size)

    def _take(self, found: Found, key: tuple[Any, Any]) -> None:
        index, is_new, order = self.index.changed(found.stays, found.new)
        move = Move(index, found.stays, is_new)
        self.take_move(move, move.of(self.weight, found.values[order]))
        if self._signs is not None:  # a grown connection draws a new sign
            new = Connections(np.zeros(order.size, np.float32), None, found.new[order], key)
            self._signs = move.of(self._signs, _first_signs(new))
        self.index = index


def places_in(mask: Any) -> Flat:
    """The flat indices of the connections inside a mask, which is an array of NumPy or can become one."""
    return np.flatnonzero(np.asarray(mask)).astype(np.int32)


def _first_signs(connections: Connections) -> Values:
    """The sign that each connection has when it becomes active."""
    everything = np.ones(connections.weight.size, np.bool_)
    signs: Values = first_memory(("sign",), connections, everything, xp=numpy_namespace)["sign"]
    return signs
