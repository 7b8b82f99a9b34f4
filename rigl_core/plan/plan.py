"""The plan: all counts of a recipe for given layers, as exact integers, computed once before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import sharing
from rigl_core.arrays.namespace import Array
from rigl_core.model.layers import Layer, check_layers
from rigl_core.model.table import SparsityTable
from rigl_core.parts.drop_fractions import counts_of, fraction_digits, fraction_numbers
from rigl_core.plan.budget import Shared, share_budget
from rigl_core.recipe.recipe import Recipe, check_recipe

Table = npt.NDArray[np.int32]
_WEIGHTS = 2**31


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

    @property
    def sparse_layers(self) -> tuple[int, ...]:
        """The positions of the layers that need a mask, since they are not dense all the time."""
        moving = {position for pool in self.pools for position in pool}
        return tuple(i for i, layer in enumerate(self.layers) if i in moving or self.active[i] < layer.size)

    def pool_size(self, number: int) -> int:
        """The number of weights, active or not, of all layers of a pool."""
        return sum(self.layers[i].size for i in self.pools[number])

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
        for pool, column in zip(self.pools, self.grow_counts.T, strict=True):
            if len(pool) == 1:
                table[:, pool[0]] = column * _weights_per_count(self.recipe, self.layers, pool)
        table.flags.writeable = False
        return table

    def possible_counts(self, pool: Sequence[int]) -> set[int]:
        """The numbers of active weights that the layers ``pool`` can have together, before and after each update."""
        totals = self.targets[:, list(pool)].sum(axis=1, dtype=np.int64).tolist()
        return {sum(self.initial_active[i] for i in pool), *totals}

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
        return SparsityTable(self.layers, self.active, self.densities, title=", ".join(parts))

    def __str__(self) -> str:
        return str(self.table)


def make_plan(recipe: Recipe, layers: Sequence[Layer]) -> Plan:
    """Share the recipe's budget among the layers, and compute how many connections each update keeps and grows.

    Raises:
        TypeError: if ``recipe`` is no recipe.
        ValueError: if there is nothing to sparsify, a pattern matches no layer, the structure does not fit a layer,
            or the budget cannot be met; the message then says which sparsities can.
    """
    check_recipe(recipe)
    layers = check_layers(layers)
    final = share_budget(recipe, layers)
    targets = _targets(recipe, layers, final)
    initial = final.active
    if recipe.ramp is not None:
        at_start = share_budget(recipe, layers, progress=0.0).active
        initial = tuple(max(start, *column) for start, column in zip(at_start, targets.T.tolist(), strict=True))
    pools = _pools(recipe, layers, final, initial)
    for pool in pools:
        _check_size(recipe, [layers[i] for i in pool])
    keep, grow, digits = _count_tables(recipe, layers, pools, targets)
    return Plan(
        recipe,
        layers,
        active=final.active,
        densities=final.densities,
        initial_active=initial,
        pools=pools,
        keep_counts=keep,
        grow_counts=grow,
        digits=digits,
        targets=_rows(targets)[0],
        epsilon=final.epsilon,
    )


def _targets(recipe: Recipe, layers: Sequence[Layer], final: Shared) -> npt.NDArray[np.int64]:
    """Active weights of each layer after each update, (updates, layers); a single row without a ramp."""
    updates = 0 if recipe.schedule is None else recipe.schedule.updates
    if recipe.ramp is None:
        return np.array([final.active] * min(updates, 1), np.int64).reshape(-1, len(layers))
    times = [update / (updates - 1) if updates > 1 else 1.0 for update in range(updates)]
    rows = [share_budget(recipe, layers, progress).active for progress in times[:-1]] + [final.active] * (updates > 0)
    table = np.array(rows, np.int64).reshape(updates, len(layers))
    # Rounding may give a layer one weight more for a smaller budget. But pruned layers never grow, so an earlier count
    # is raised to the largest count that follows.
    return np.maximum.accumulate(table[::-1], axis=0)[::-1]


def _pools(
    recipe: Recipe, layers: Sequence[Layer], final: Shared, initial: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    sparse = [i for i, layer in enumerate(layers) if min(final.active[i], initial[i]) < layer.size]
    if recipe.scope == "layer" and recipe.redistribution is None:
        return tuple((i,) for i in sparse)
    free = tuple(i for i, layer in enumerate(layers) if layer.name not in final.pinned and layer.size)
    return ((free,) if free else ()) + tuple((i,) for i in sparse if i not in free)


def _check_size(recipe: Recipe, pool: Sequence[Layer]) -> None:
    """Refuse a pool that is too large for int32 counts, or for sharing by `sharing.in_proportion`."""
    size = sum(layer.size for layer in pool)
    if size >= _WEIGHTS and len(pool) > 1:
        parameter = "scope" if recipe.redistribution is None else "redistribution"
        raise ValueError(
            f"{parameter} is {getattr(recipe, parameter)!r}, and layers {pool[0].name!r} to {pool[-1].name!r} have "
            f"{size:,} weights: fewer than 2**31 are possible in layers that choose together. Pin or exclude some, "
            "or use scope='layer' without redistribution."
        )
    if recipe.drop.by_sign and size >= sharing.MOST:
        raise ValueError(
            f"drop is {recipe.drop.name!r}, and layer {pool[0].name!r} has {size:,} weights: this drop needs fewer "
            "than 2**27. Pin or exclude the layer, or use another drop."
        )


def _count_tables(
    recipe: Recipe, layers: Sequence[Layer], pools: Sequence[Sequence[int]], targets: npt.NDArray[np.int64]
) -> Tables:
    """The numbers that each update keeps and grows in each pool, and the digits of its drop fraction."""
    columns = [targets[:, list(pool)].sum(axis=1) // _weights_per_count(recipe, layers, pool) for pool in pools]
    after = np.array(columns, np.int64).reshape(len(pools), len(targets)).T
    fractions = np.zeros(len(targets), np.int64)
    if recipe.schedule is not None and recipe.grow is not None:
        fractions = fraction_numbers(recipe.schedule, recipe.drop_fraction)
        fractions = fractions[:1] if (fractions == fractions[:1]).all() else fractions
    grow = counts_of(fractions, after)
    digits = fraction_digits(fractions)[:, : None if recipe.redistribution is not None else 0]
    digits = np.broadcast_to(digits, (len(grow), digits.shape[1]))
    return Tables(*_rows(after.astype(np.int32) - grow, grow, digits))


def _weights_per_count(recipe: Recipe, layers: Sequence[Layer], pool: Sequence[int]) -> int:
    """The number of weights for each unit of a pool's counts: 1 without a structure."""
    arrangement = recipe.structure.arrangement(layers[pool[0]])
    return 1 if arrangement is None else max(arrangement.weights_per_choice, 1)


def _rows(*tables: npt.NDArray[Any]) -> list[Table]:
    """Read-only copies of the tables; with a single row each, if every table has only equal rows."""
    same = all((table == table[:1]).all() for table in tables)
    small = [np.array(table[:1] if same else table, np.int32) for table in tables]
    for table in small:
        table.flags.writeable = False
    return small
