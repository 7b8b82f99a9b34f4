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


class ActiveLayer(adapter.ActiveLayer):
    """A layer in arrays of NumPy.

    Attributes:
        sources: for each active weight its position before the update, in storage order; -1 for new ones.
    """

    weight: Any

    def __init__(self, layer: Layer, recipe: Recipe, index: Index, weight: Any) -> None:
        super().__init__(layer, recipe, index)
        self.weight, self.sources = weight, np.arange(weight.size, dtype=np.int32)

    def take_move(self, move: Move, weight: Any) -> None:
        self.weight, self.sources = weight, move.of(self.sources, -1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Moving:
    """What an update reads of a layer. Its arrays are JAX's or, on the host, NumPy's.

    Attributes:
        values: the active weights.
        columns: of the topology.
        pointers: the same.
        gradient: of the active weights; or dense, in C order; None where the layer is not trained.
    """

    values: Any
    columns: Any
    pointers: Any
    gradient: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Moved:
    """What an update gives of a layer. Its arrays are JAX's or, on the host, NumPy's.

    Attributes:
        values: the active weights.
        columns: of the topology.
        pointers: the same.
        digest: the topology's first two marks.
        sources: see `ActiveLayer`.
    """

    values: Any
    columns: Any
    pointers: Any
    digest: Any
    sources: Any


@dataclass(frozen=True)
class Mover:
    """A topology update of all layers of active weights.

    Attributes:
        plan: of the training.
        layers: for each layer its position in the plan, and its layout and link.
    """

    plan: Plan
    layers: Sequence[tuple[int, Layout, Link]]

    def move(self, moving: Array, update: Array, before: list[Moving]) -> tuple[Array, list[Moved]]:
        """The layers after an update, and whether it was made: its gradients must be finite (T5).

        Compiled steps call it whether an update is due or not, since a branch would copy arrays at every step. If it
        is not made, the layers have any values.

        Args:
            moving: whether the update is due, and may be made.
            update: its number.
            before: the layers.
        """
        given = (moving, update, before)
        if not is_traced(given):  # a callback would be compiled at every call
            own = self._move(*jax.tree.map(np.asarray, given))
            empty = [Moved(one.values, one.columns, one.pointers, np.zeros(2), one.columns) for one in before]
            return jax.tree.map(jnp.asarray, (own is not None, empty if own is None else own))  # type: ignore[no-any-return]

        def write(_: Any, results: Any, *given: Any) -> None:
            made, after = results
            own = self._move(*jax.tree.map(np.asarray, given))
            np.asarray(made)[...] = own is not None
            for result, array in zip(jax.tree.leaves(after), jax.tree.leaves(own), strict=own is not None):
                np.copyto(np.asarray(result), array)

        like = [
            Moved(one.values, one.columns, one.pointers, spec((2,), np.float32), spec(one.values.shape, np.int32))
            for one in before
        ]
        shapes = jax.tree.map(lambda array: spec(array.shape, array.dtype), like)
        moved: tuple[Array, list[Moved]] = buffer_callback(write, (spec((), np.bool_), shapes))(*given)
        return moved

    def _move(self, moving: Any, update: Any, before: list[Moving]) -> list[Moved] | None:
        """The layers after an update; None if it is not made."""
        if not moving:
            return None
        number, own = int(update), [self._layer(*one) for one in zip(self.layers, before, strict=True)]
        counts = [self.plan.counts(number, self.plan.pools.index((position,))) for position, _, _ in self.layers]
        finite = True
        for layer, (_, layout, link), one, count in zip(own, self.layers, before, counts, strict=True):
            finite &= layer.prepare(number, _gradient(layer, layout, link, one.gradient), count)
        if not finite:
            return None
        for layer, count in zip(own, counts, strict=True):
            layer.move(number, None, count)
        return list(map(_after, own))

    def _layer(self, described: tuple[int, Layout, Link], before: Moving) -> ActiveLayer:
        position, layout, _ = described
        index = layout.index(before.columns, before.pointers)
        return ActiveLayer(self.plan.layers[position], self.plan.recipe, index, before.values)


def _gradient(layer: ActiveLayer, layout: Layout, link: Link, gradient: Any) -> Gradient | None:
    if gradient is None:
        return None
    if gradient.shape == layer.layer.shape:
        return Whole(layer.index.values(gradient), gradient.reshape(-1))
    if not layer.rule.reads_gradient:
        return ActiveOnly(gradient, layout.name)
    return link.gradient(layout, layer.index, gradient)


def _after(layer: ActiveLayer) -> Moved:
    index = layer.index
    return Moved(layer.weight, index.columns, index.pointers, digest_of(index), layer.sources)
