"""The layers of active weights in a topology update: NumPy finds where they move, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.buffer_callback import buffer_callback

from rigl_backends.jax.active_weight import Layout, digest_of
from rigl_backends.jax.link import Link
from rigl_backends.jax.trees import is_traced, spec
from rigl_core import adapter
from rigl_core.adapter import ActiveOnly, Gradient, Index, Layer, Move, Plan, Recipe, Whole

Arrays = Any
"""A list or dict of arrays of NumPy."""


class ActiveLayer(adapter.ActiveLayer):
    """A layer and what the optimizer holds for its weights, in arrays of NumPy.

    Attributes:
        held: the optimizer's arrays; new connections have zeros there.
        is_new: which connections an update has brought, in storage order.
    """

    weight: Any

    def __init__(self, layer: Layer, recipe: Recipe, index: Index, weight: Any, held: Sequence[Any]) -> None:
        super().__init__(layer, recipe, index)
        self.weight, self.held, self.is_new = weight, list(held), np.zeros(weight.size, np.bool_)

    def take_move(self, move: Move, weight: Any) -> None:
        self.weight, self.is_new = weight, move.is_new
        self.held = [move.of(array, 0) for array in self.held]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Moving:
    """What an update reads of a layer, or writes.

    Its arrays are JAX's or, on the host, NumPy's.

    Attributes:
        values: the active weights.
        held: what the optimizer holds for them.
        columns: of the topology; so are ``pointers`` and ``marks``.
        is_new: the connections that the update has brought.
    """

    values: Any
    held: list[Any]
    columns: Any
    pointers: Any
    marks: Any
    is_new: Any


@dataclass(frozen=True)
class Mover:
    """A topology update of all layers of active weights.

    Attributes:
        plan: of the training.
        layers: for each layer its position in the plan, and its layout and link.
    """

    plan: Plan
    layers: Sequence[tuple[int, Layout, Link]]

    def move(self, update: Array, before: list[Moving], gradients: list[Any]) -> tuple[Array, list[Moving]]:
        """The layers after an update, and whether it was made: its gradients must be finite (T5).

        Args:
            update: the number of the update.
            before: the layers.
            gradients: of the active weights; or dense, in C order; None where a layer is not trained.
        """
        given = (update, before, gradients)
        if not is_traced(given):  # a callback would be compiled at every call
            return jax.tree.map(jnp.asarray, self._move(*jax.tree.map(np.asarray, given)))  # type: ignore[no-any-return]

        def write(_: Any, results: Any, *given: Any) -> None:
            moved = self._move(*jax.tree.map(np.asarray, given))
            for result, array in zip(jax.tree.leaves(results), jax.tree.leaves(moved), strict=True):
                np.copyto(np.asarray(result), array)

        like = jax.tree.map(lambda array: spec(array.shape, array.dtype), (jnp.ones((), bool), before))
        moved: tuple[Array, list[Moving]] = buffer_callback(write, like)(*given)
        return moved

    def _move(self, update: Any, before: list[Moving], gradients: list[Any]) -> tuple[Any, list[Moving]]:
        own = [self._layer(*one) for one in zip(self.layers, before, strict=True)]
        number, finite = int(update), True
        for layer, (position, _, link), gradient in zip(own, self.layers, gradients, strict=True):
            counts = self.plan.counts(number, self._pool(position))
            read = None if gradient is None else self._gradient(layer, link, gradient)
            finite &= layer.prepare(number, read, counts)
        if not finite:
            return np.bool_(False), before
        for layer, (position, _, _) in zip(own, self.layers, strict=True):
            layer.move(number, None, self.plan.counts(number, self._pool(position)))
        return np.bool_(True), [_after(*one) for one in zip(own, before, strict=True)]

    def _layer(self, described: tuple[int, Layout, Link], before: Moving) -> ActiveLayer:
        position, layout, _ = described
        index = layout.index(before.columns, before.pointers)
        return ActiveLayer(self.plan.layers[position], self.plan.recipe, index, before.values, before.held)

    def _gradient(self, layer: ActiveLayer, link: Link, gradient: Any) -> Gradient:
        name = layer.layer.name
        if gradient.shape == layer.layer.shape:
            return Whole(layer.index.values(gradient), gradient.reshape(-1))
        return link.gradient(name, layer.index, gradient) if layer.rule.reads_gradient else ActiveOnly(gradient, name)

    def _pool(self, position: int) -> int:
        return self.plan.pools.index((position,))


def _after(layer: ActiveLayer, before: Moving) -> Moving:
    index = layer.index
    marks = np.append(digest_of(index), before.marks[2])
    return Moving(layer.weight, layer.held, index.columns, index.pointers, marks, layer.is_new)
