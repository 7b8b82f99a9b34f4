"""The plan: all counts of a recipe for given layers, as exact integers, computed once before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rigl_core.arrays.namespace import Array
from rigl_core.model.layers import Layer
from rigl_core.model.table import SparsityTable
from rigl_core.parts.slices import arrangement_of
from rigl_core.recipe.recipe import Recipe

Table = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Counts:
    """The numbers of connections that an update keeps and grows in one pool.

    Attributes:
        keep: the number to keep; with a structure, the number of units to keep in each group.
        grow: the number to grow; with a structure, the number of units to grow in each group.
        digits: int32 digits of the drop fraction, whole part first; empty or None if the recipe does not redistribute.
    """

    keep: Array | int
    grow: Array | int
    digits: Array = None


class Tables(NamedTuple):
    """The counts of all updates, as arrays of NumPy or of a framework; the attributes of `Plan` explain them."""

    keep_counts: Array
    grow_counts: Array
    digits: Array

    def counts(self, update: Array | int, pool: int) -> Counts:
        """The counts of one update, whose number may be traced, in one pool."""
        row = update if self.keep_counts.shape[0] > 1 else 0  # all updates share a single row
        return Counts(self.keep_counts[row, pool], self.grow_counts[row, pool], self.digits[row])


@dataclass(frozen=True)
class Plan:
    """The counts that follow from a recipe for the layers of a model. ``print(plan)`` shows a table.

    Attributes:
        recipe: the recipe.
        layers: the layers, in the given order.
        active: the planned number of active weights of each layer; with a ramp, the final number. Updates change it
            for layers that exchange connections.
        densities: the real-valued density of each layer, before ``active`` was rounded to whole weights.
        initial_active: active weights of each layer before the first step; without a ramp, equal to ``active``.
        pools: the positions of the layers that choose together, for each pool. A pool is a single layer, unless the
            recipe chooses globally or redistributes.
        keep_counts: read-only int32 array (rows, pools): the number of connections that each update keeps in each pool;
            with a structure, the number of units in each group. A table whose rows are all equal has a single row; see
            `counts`.
        grow_counts: read-only int32 array (rows, pools): the number that each update grows. Without a ramp, an update
            drops as many as it grows.
        digits: read-only int32 array (rows, 13): the digits of the drop fraction at each update, whole part first. Its
            shape is (rows, 0) if the recipe does not redistribute.
        targets: read-only int32 array (updates, layers), or with a single row if all rows are equal: the planned number
            of active weights of each layer after each update; see `active_after`.
        epsilon: the scale that ER and ERK solve for; None for other distributions.
        others: the sizes of the model's parameters that are no layers, by name, as far as they are known.
    """

    recipe: Recipe
    layers: tuple[Layer, ...]
    active: tuple[int, ...]
    densities: tuple[float, ...]
    initial_active: tuple[int, ...]
    pools: tuple[tuple[int, ...], ...]
    keep_counts: Table = field(compare=False, repr=False)
    grow_counts: Table = field(compare=False, repr=False)
    digits: Table = field(compare=False, repr=False)
    targets: Table = field(compare=False, repr=False)
    epsilon: float | None = None
    others: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def sparse_layers(self) -> tuple[int, ...]:
        """The positions of the layers that need a mask, since they are not dense all the time."""
        moving = {position for pool in self.pools for position in pool}
        return tuple(i for i, layer in enumerate(self.layers) if i in moving or self.active[i] < layer.size)

    def pool_size(self, number: int) -> int:
        """The number of weights, active or not, of all layers of a pool."""
        return sum(self.layers[i].size for i in self.pools[number])

    def weights_per_count(self, pool: int) -> int:
        """The number of weights for each unit of a pool's counts: 1 without a structure."""
        return weights_per_count_of(self.recipe, self.layers, self.pools[pool])

    @property
    def tables(self) -> Tables:
        """The tables that updates read."""
        return Tables(self.keep_counts, self.grow_counts, self.digits)

    def counts(self, update: int, pool: int) -> Counts:
        """The numbers of connections that an update keeps and grows in one pool, as Python integers."""
        counts = self.tables.counts(update, pool)
        return Counts(int(counts.keep), int(counts.grow), counts.digits)

    def active_after(self, update: int) -> tuple[int, ...]:
        """The planned number of active weights of each layer after update number ``update``."""
        return tuple(self.targets[min(update, len(self.targets) - 1)].tolist())

    @property
    def drop_counts(self) -> Table:
        """Int32 array (rows, layers): the number of connections that each update drops and replaces in each layer.

        It is 0 for a layer that shares its pool with others: only the update decides its number.
        """
        table = np.zeros((len(self.grow_counts), len(self.layers)), np.int32)
        for number, pool in enumerate(self.pools):
            if len(pool) == 1:
                table[:, pool[0]] = self.grow_counts[:, number] * self.weights_per_count(number)
        table.flags.writeable = False
        return table

    def possible_counts(self, pool: Sequence[int]) -> set[int]:
        """The numbers of active weights that the layers ``pool`` can have together, before and after each update."""
        totals = self.targets[:, list(pool)].sum(axis=1, dtype=np.int64).tolist()
        first = sum(self.initial_active[i] for i in pool)
        if self.recipe.gamma_sal is not None:  # M12
            layer = self.layers[pool[0]]
            return {first} | {left * (most // left) for left in range(1, layer.n_out + 1) for most in totals}
        return {first, *totals}

    @property
    def table(self) -> SparsityTable:
        """The planned densities, layer by layer, as a table."""
        dense = len(self.layers) - sum(n < layer.size for n, layer in zip(self.active, self.layers, strict=True))
        parts = [self.recipe.method, self.recipe.distribution.kind]
        if self.recipe.sparsity is not None:
            parts.insert(1, f"sparsity {self.recipe.sparsity}")
        if self.epsilon is not None:
            parts.append(f"epsilon = {self.epsilon:.4f}")
        parts.append(f"{len(self.layers)} layers, {dense} of them dense")
        if self.others:
            size = sum(layer.size for layer in self.layers)
            parts.append(f"with {size:,} of {size + sum(self.others.values()):,} parameters")
        return SparsityTable(self.layers, self.active, self.densities, title=", ".join(parts))

    def __str__(self) -> str:
        return str(self.table)


def weights_per_count_of(recipe: Recipe, layers: Sequence[Layer], pool: Sequence[int]) -> int:
    """The number of weights for each unit of the counts of a pool: 1 without a structure."""
    arrangement = arrangement_of(recipe.structure, layers[pool[0]])
    return 1 if arrangement is None else max(arrangement.weights_per_choice, 1)
