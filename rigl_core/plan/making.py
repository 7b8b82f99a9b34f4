"""How a plan is made from a recipe and layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.arrays import sharing
from rigl_core.model.layers import Layer, check_layers
from rigl_core.parts.drop_fractions import counts_of, fraction_digits, fraction_numbers
from rigl_core.parts.units import connections_of
from rigl_core.plan.budget import Shared, share_budget
from rigl_core.plan.plan import Plan, Table, Tables, weights_per_count_of
from rigl_core.recipe.compatibility import decides_alone
from rigl_core.recipe.recipe import Recipe, check_recipe

_WEIGHTS = 2**31


def make_plan(recipe: Recipe, layers: Sequence[Layer], others: Mapping[str, int] | None = None) -> Plan:
    """Share the recipe's budget among the layers, and compute how many connections each update keeps and grows.

    Args:
        recipe: the recipe.
        layers: the layers.
        others: the sizes of the model's other parameters by name; the plan shows the layers' share of all.

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
    _check_slices(recipe, [layers[i] for pool in pools for i in pool])
    _check_units(recipe, [layers[i] for pool in pools for i in pool])
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
        others=dict(others or {}),
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


def _check_slices(recipe: Recipe, layers: Sequence[Layer]) -> None:
    """Refuse layers with slices in a recipe that cannot choose in each slice."""
    parameter, why = "drop", "decides from the weights of a whole layer how many it drops: use another drop"
    if recipe.scope == "global":
        parameter, why = "scope", "gives no slice a number of its own: use scope='layer'"
    elif recipe.redistribution is not None:
        parameter, why = "redistribution", "moves single connections between layers: leave it out"
    elif recipe.floor:
        parameter, why = "floor", "is kept in whole layers: leave it out"
    elif recipe.gamma_sal is not None:
        parameter, why = "gamma_sal", "takes outputs away over whole layers: leave it out"
    elif not decides_alone(recipe.drop):
        return
    for layer in layers:
        if layer.slices > 1:
            given = recipe.drop.name if parameter == "drop" else getattr(recipe, parameter)
            raise ValueError(
                f"{parameter} is {given!r}, and layer {layer.name!r} has {layer.slices} slices (stacked, fused). It "
                f"{why}, or do not say that the layer has slices."
            )


def _check_units(recipe: Recipe, layers: Sequence[Layer]) -> None:
    """Refuse layers whose outputs or inputs cannot be told, if the recipe looks at these."""
    for layer in layers:
        if recipe.floor:
            connections_of("output", layer, "floor")
        if recipe.grow is not None and recipe.grow.compared_within is not None:
            connections_of(recipe.grow.compared_within, layer, f"grow={recipe.grow.name!r}")


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
    if recipe.gamma_sal is not None and size >= _WEIGHTS:
        raise ValueError(
            f"gamma_sal is {recipe.gamma_sal}, and layer {pool[0].name!r} has {size:,} weights: it needs fewer than "
            "2**31. Pin or exclude the layer, or leave gamma_sal out."
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
    columns = [targets[:, list(pool)].sum(axis=1) // weights_per_count_of(recipe, layers, pool) for pool in pools]
    after = np.array(columns, np.int64).reshape(len(pools), len(targets)).T
    fractions = np.zeros(len(targets), np.int64)
    if recipe.schedule is not None and recipe.grow is not None:
        fractions = fraction_numbers(recipe.schedule, recipe.drop_fraction)
        fractions = fractions[:1] if (fractions == fractions[:1]).all() else fractions
    grow = counts_of(fractions, after)
    digits = fraction_digits(fractions)[:, : None if recipe.redistribution is not None else 0]
    digits = np.broadcast_to(digits, (len(grow), digits.shape[1]))
    return Tables(*_rows(after.astype(np.int32) - grow, grow, digits))


def _rows(*tables: npt.NDArray[Any]) -> list[Table]:
    """Read-only copies of the tables; with a single row each, if every table has only equal rows."""
    same = all((table == table[:1]).all() for table in tables)
    small = [np.array(table[:1] if same else table, np.int32) for table in tables]
    for table in small:
        table.flags.writeable = False
    return small
