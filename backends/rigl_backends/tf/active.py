"""A layer of active weights in a sparse training: its variables, and its update on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.tf.layer import Kept, SparseLayer
from rigl_backends.tf.link import NO_STATE, Columns, Link, Pointers, call_host, digest
from rigl_backends.tf.moving import moved
from rigl_backends.tf.multiplying import Floats
from rigl_backends.tf.state import PerWeight
from rigl_core import adapter
from rigl_core.adapter import ActiveOnly, Counts, Gradient, Index, Layer, Move, Recipe

CountsOf = Callable[[int], Counts]
"""How many connections an update keeps and grows, given its number."""


class ActiveLayer(SparseLayer):
    """The kernel of a layer of active weights: all arrays have a number for each active weight, in storage order.

    Attributes:
        variable: the active weights.
        link: the host's side of the layer.
    """

    def __init__(
        self,
        layer: Layer,
        recipe: Recipe,
        variable: Any,
        state: Sequence[PerWeight],
        add: Callable[[str, tf.Tensor], keras.Variable],
    ) -> None:
        super().__init__(layer, recipe, variable, state, add)
        self.link: Link = variable.link
        self._host = _HostLayer(layer, recipe, self.link)

    # Where the arrays are.

    @property
    def _places(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(variable.value) for variable in self.link.places]

    @property
    def mask(self) -> tf.Tensor:
        return tf.constant(self._index.mask())

    @mask.setter
    def mask(self, mask: tf.Tensor) -> None:
        raise NotImplementedError("a layer of active weights moves as a whole")

    @property
    def active(self) -> int:
        return self._index.size

    @property
    def _index(self) -> Index:
        return self.link.index(*(variable.numpy() for variable in self.link.places))

    def indices(self) -> tf.Tensor:
        (flat,) = call_host(self.link.flat, self._places, tf.int32)
        return tf.ensure_shape(flat, self.variable.shape)

    def flat(self, array: Any) -> tf.Tensor:
        return tf.reshape(array, [-1])

    def shaped(self, values: tf.Tensor) -> tf.Tensor:
        return values

    # Nothing is outside.

    def zero_weight_outside(self, mask: tf.Tensor) -> None:
        """Nothing is outside."""

    def zero_state_outside(self, mask: tf.Tensor) -> None:
        """Nothing is outside."""

    def zero_what_was_written(self) -> None:
        """Nothing is outside."""

    def count_outside(self) -> None:
        """Nothing is outside."""

    def zero_outside(self, values: tf.Tensor) -> tf.Tensor:
        return values

    def zero_gradient_outside(self, gradient: Any) -> tf.Tensor:
        return tf.identity(gradient)

    # What a step does.

    def begin(self) -> None:
        """Before the first step: make the memory that the recipe needs, and remember whose state the optimizer has.

        Keras makes the optimizer of a saved model before it loads the places; what is made here is then loaded too.
        """
        waits = self.link.awaits_places
        self._digest = self._add("places", tf.constant(NO_STATE if waits else digest(self._index), tf.int64))
        self._memory = {}
        if "sign" in self.rule.memories:
            signs = np.ones_like(self._numbers) if waits else self._host.first_signs(self._index, self._numbers)
            self._memory = {"sign": self._add("sign", tf.constant(signs))}

    def go_on(self, kept: Kept) -> None:
        index = self._index
        self._digest = self._add("places", tf.constant(digest(index), tf.int64))
        inside = {kind: index.values(array.numpy()) for kind, array in kept.memory.items()}
        self._memory = {kind: self._add(kind, tf.constant(values)) for kind, values in inside.items()}

    def whole_memory(self) -> dict[str, tf.Tensor]:
        index = self._index
        return {kind: tf.constant(index.dense(array.numpy(), outside=1)) for kind, array in self.memory.items()}

    @property
    def _numbers(self) -> Floats:
        numbers: Floats = self.variable.numpy()
        return numbers

    def see(self, update: tf.Tensor, gradient: tf.Tensor, counts: CountsOf) -> tf.Tensor:
        """Find the new topology, before anything moves.

        Args:
            update: the update's number.
            gradient: of the active weights.
            counts: how many connections an update keeps and grows, given its number.

        Returns:
            Whether the dense gradient is finite (T5).
        """
        see = functools.partial(self._host.see, counts)
        (finite,) = call_host(see, self._given(update, gradient), tf.bool)
        return tf.ensure_shape(finite, [])

    def update(self, update: tf.Tensor, gradient: tf.Tensor, counts: CountsOf) -> None:
        """One update, which optimizer state and memory follow; see `see`."""
        after = functools.partial(self._host.after, counts)
        kinds = [tf.float32, tf.int32, tf.int32, tf.uint16, tf.int64, *(tf.float32 for _ in self._memory)]
        arrays = call_host(after, self._given(update, gradient), *kinds)
        weight, source, *others = arrays
        weight, source = (tf.ensure_shape(array, self.variable.shape) for array in (weight, source))
        for variable, fresh in self._state:
            new = weight if fresh is None else fresh
            variable.assign(moved(tf.convert_to_tensor(variable.value), source, new))
        written = (self.variable, *self.link.places, self._digest, *self._memory.values())
        for variable, array in zip(written, (weight, *others), strict=True):
            variable.assign(tf.ensure_shape(array, variable.shape))

    def clock(self, step: keras.Variable, deferred: keras.Variable) -> tuple[Any, Any, Any]:
        """What the link asks for, as variables."""
        return step.value, deferred.value, self._digest.value

    def _given(self, update: tf.Tensor, gradient: tf.Tensor) -> list[tf.Tensor]:
        return [update, *self._places, self.weight, gradient, *self.memory.values()]

    def forget_samples(self, waits: tf.Tensor) -> None:
        """End a step that could read samples, when it is known whether the update waits, and the weights are."""
        call_host(self._host.end, [waits, self.weight])


class _HostLayer(adapter.ActiveLayer):
    """The layer during one update, as arrays of NumPy.

    Attributes:
        weight: the active weights.
    """

    weight: Floats

    def __init__(self, layer: Layer, recipe: Recipe, link: Link) -> None:
        super().__init__(layer, recipe, link.index_of(np.empty(0, np.int32)))
        self._link = link

    def first_signs(self, index: Index, weight: Floats) -> Floats:
        """The signs that a training begins with."""
        self.index, self.weight = index, weight
        super().begin()
        assert self._signs is not None
        return self._signs

    def see(self, counts: CountsOf, update: Any, *arrays: Any) -> tuple[np.bool_]:
        """Find the new topology, and say whether the dense gradient is finite."""
        return (np.bool_(self.prepare(int(update), self._given(*arrays), counts(int(update)))),)

    def after(self, counts: CountsOf, update: Any, *arrays: Any) -> list[npt.NDArray[Any]]:
        """The arrays after an update.

        These are the weights, where each of them was before, the places with their digest, and signs if there are any.
        What `see` found is taken, unless the weights have changed since.
        """
        if self.rule.on_update == "after":
            self.forget()
        gradient = self._given(*arrays)
        self._source = np.arange(self.index.size, dtype=np.int32)
        self.move(int(update), gradient, counts(int(update)))
        self._link.moved()
        signs = [] if self._signs is None else [self._signs]
        index = self.index
        return [self.weight, self._source, index.pointers, index.columns, np.array(digest(index)), *signs]

    def take_move(self, move: Move, weight: Floats) -> None:
        self._source = move.of(np.arange(move.stays.size, dtype=np.int32), -1)
        self.weight = weight

    def end(self, *_: Any) -> tuple[()]:
        """Forget what was found, and the samples."""
        self.forget()
        self._link.forget()
        return ()

    def _given(
        self, pointers: Pointers, columns: Columns, weight: Floats, gradient: Floats, *signs: Floats
    ) -> Gradient:
        """Take the arrays before an update; their gradient, as the update reads it."""
        self.index, self.weight, self._signs = self._link.index(pointers, columns), weight, None
        if signs:
            (self._signs,) = signs
        if not self.rule.reads_gradient:
            return ActiveOnly(gradient, self.layer.name)
        try:
            return self._link.gradient(gradient, self.layer.name)
        except ValueError:
            for link in self._link.together:
                link.forget()
            raise
