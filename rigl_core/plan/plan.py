"""The plan: a recipe for given layers, with every count an exact integer, made once before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import sharing
from rigl_core.model.layers import Layer, check_layers
from rigl_core.model.table import SparsityTable
from rigl_core.parts.drop_fractions import counts_of, fraction_digits, fraction_numbers
from rigl_core.plan.budget import Shared, share_budget
from rigl_core.recipe import Recipe

Table = npt.NDArray[np.int32]
_MOST = 2**31


@dataclass(frozen=True)
class Plan:
    """What a recipe means for a model. ``print(plan)`` shows it as a table.

    Attributes:
        recipe: the recipe.
        layers: the layers, in the order given.
        active: active weights of each layer; with a ramp, in the end; where layers of a pool exchange connections,
            before they do.
        densities: the real-valued densities of the distribution, which ``active`` rounds to whole weights.
        initial_active: active weights of each layer before the first step: ``active``, unless there is a ramp.
        pools: the layers, by position, from which an update chooses together: one layer each, unless the recipe
            chooses globally or redistributes.
        keep_counts: read-only int32 array (rows, pools): how many connections each update keeps; of each group, if
            they are chosen in groups. Where all rows would be the same there is only one; see `row`.
        grow_counts: the same, how many it grows; with the same sparsity throughout also how many it drops.
        digits: the decimals of the drop fraction at each update, (rows, 13), if layers change their size.
        targets: int32 array (updates, layers), or with one row if nothing changes: active weights of each layer after
            each update, as planned; see `active_after`.
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
        """The positions of the layers with a mask that matters: the ones that are not dense throughout."""
        moving = {position for pool in self.pools for position in pool}
        return tuple(i for i, layer in enumerate(self.layers) if i in moving or self.active[i] < layer.size)

    def pool_size(self, number: int) -> int:
        """How many connections the layers of a pool could have."""
        return sum(self.layers[i].size for i in self.pools[number])

    def row(self, update: int) -> int:
        """Which row of ``keep_counts``, ``grow_counts`` and ``digits`` an update reads."""
        return min(update, len(self.keep_counts) - 1)

    def active_after(self, update: int) -> tuple[int, ...]:
        """Active weights of each layer after an update, as planned."""
        return tuple(self.targets[min(update, len(self.targets) - 1)].tolist())

    @property
    def drop_counts(self) -> Table:
        """Int32 array (rows, layers): how many connections a layer drops and grows again, where that is planned."""
        table = np.zeros((len(self.grow_counts), len(self.layers)), np.int32)
        for pool, column in zip(self.pools, self.grow_counts.T, strict=True):
            if len(pool) == 1:
                table[:, pool[0]] = column * _step(self.recipe, self.layers, pool)
        table.flags.writeable = False
        return table

    def possible_counts(self, pool: Sequence[int]) -> set[int]:
        """How many active weights layers of one pool can have together: before the first update, and after each."""
        totals = self.targets[:, list(pool)].sum(axis=1, dtype=np.int64).tolist()
        return {sum(self.initial_active[i] for i in pool), *totals}

    @property
    def table(self) -> SparsityTable:
        """The planned densities, layer by layer."""
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
    """Share the recipe's budget among the layers and tabulate what each update keeps and grows.

    Raises:
        TypeError: if ``recipe`` is no recipe.
        ValueError: if there is nothing to sparsify, a pattern matches no layer, the structure does not fit a layer,
            or the budget cannot be met; the message then says which sparsities can.
    """
    Recipe.check(recipe)
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
    """Active weights (updates, layers) after each update; a single row if nothing changes."""
    updates = 0 if recipe.schedule is None else recipe.schedule.updates
    if recipe.ramp is None:
        return np.array([final.active] * min(updates, 1), np.int64).reshape(-1, len(layers))
    times = [update / (updates - 1) if updates > 1 else 1.0 for update in range(updates)]
    rows = [share_budget(recipe, layers, progress).active for progress in times[:-1]] + [final.active] * (updates > 0)
    table = np.array(rows, np.int64).reshape(updates, len(layers))
    # Rounding may give a layer one weight more for a smaller budget, and nothing grows on the way down.
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
    """Counts are int32 numbers, and must stay below what they are multiplied with."""
    size = sum(layer.size for layer in pool)
    if size >= _MOST and len(pool) > 1:
        parameter = "scope" if recipe.redistribution is None else "redistribution"
        raise ValueError(
            f"{parameter} is {getattr(recipe, parameter)!r}, and layers {pool[0].name!r} to {pool[-1].name!r} have "
            f"{size:,} weights: fewer than 2**31 can be chosen from together. Pin or exclude layers, or use "
            "scope='layer' without redistribution."
        )
    if recipe.drop.by_sign and size >= sharing.MOST:
        raise ValueError(
            f"drop is {recipe.drop.name!r}, and layer {pool[0].name!r} has {size:,} weights: it can share fewer than "
            "2**27. Pin or exclude the layer, or use another drop."
        )


def _count_tables(
    recipe: Recipe, layers: Sequence[Layer], pools: Sequence[Sequence[int]], targets: npt.NDArray[np.int64]
) -> tuple[Table, Table, Table]:
    """What each update keeps and grows in each pool, and the digits of its drop fraction."""
    columns = [targets[:, list(pool)].sum(axis=1) // _step(recipe, layers, pool) for pool in pools]
    after = np.array(columns, np.int64).reshape(len(pools), len(targets)).T
    fractions = np.zeros(len(targets), np.int64)
    if recipe.schedule is not None and recipe.grow is not None:
        fractions = fraction_numbers(recipe.schedule, recipe.drop_fraction)
        fractions = fractions[:1] if (fractions == fractions[:1]).all() else fractions
    grow = counts_of(fractions, after)
    digits = fraction_digits(fractions)[:, : None if recipe.redistribution is not None else 0]
    digits = np.broadcast_to(digits, (len(grow), digits.shape[1]))
    tables = _rows(after.astype(np.int32) - grow, grow, digits)
    return tables[0], tables[1], tables[2]


def _step(recipe: Recipe, layers: Sequence[Layer], pool: Sequence[int]) -> int:
    """How many weights one of a pool's counts stands for."""
    arrangement = recipe.structure.arrangement(layers[pool[0]])
    return 1 if arrangement is None else max(arrangement.groups * arrangement.unit, 1)


def _rows(*tables: npt.NDArray[Any]) -> list[Table]:
    """The tables, read-only: one row of each, if all their rows are the same."""
    same = all((table == table[:1]).all() for table in tables)
    small = [np.array(table[:1] if same else table, np.int32) for table in tables]
    for table in small:
        table.flags.writeable = False
    return small
