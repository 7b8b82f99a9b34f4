"""A sparse training in JAX: pure functions from one state to the next."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax import Array

from rigl_backends.jax.checks import check_arrays, check_inner, look, when
from rigl_backends.jax.selection import criteria_of, initial_mask, moved_mask
from rigl_backends.jax.state import SparseState
from rigl_backends.jax.trees import Tree, named_leaves, with_leaves, zero_outside, zero_state_outside
from rigl_core.layers import Layer
from rigl_core.plan import Plan, make_plan
from rigl_core.random import INITIAL, random_key, random_key_table
from rigl_core.recipe import Recipe
from rigl_core.schedules import UpdateSchedule

Arrays = dict[str, Array]
"""Arrays of the sparse layers, by name."""


class SparseTraining:
    """``init`` and ``update`` of `sparsify`'s transformation.

    Args:
        inner: what makes updates of gradients.
        recipe: how to train sparsely.
        choose: the layers of a parameter tree.
    """

    def __init__(
        self, inner: optax.GradientTransformation, recipe: Recipe, choose: Callable[[Tree], tuple[Layer, ...]]
    ) -> None:
        self._inner = optax.with_extra_args_support(inner)
        self._recipe = recipe
        self._choose = choose
        schedule = dataclasses.asdict(recipe.schedule or UpdateSchedule(end=0))
        # A step is an int32, which never gets further than this.
        self._schedule = UpdateSchedule(**{field: min(number, 2**31 - 1) for field, number in schedule.items()})
        self._plan_of = functools.lru_cache(self._make_plan)

    def init(self, params: Tree) -> SparseState:
        """The state before the first step."""
        plan, _ = self._plan_of(self._choose(params))
        weights, masks = named_leaves(params), {layer.name: jnp.ones((), bool) for layer in plan.layers}
        for i in plan.sparse_layers:
            name = plan.layers[i].name
            key = np.array(random_key(self._recipe.seed, name, INITIAL), np.int32)
            masks[name] = initial_mask(criteria_of(self._recipe), weights[name], key, plan.active[i])
        inner_state = self._inner.init(params)
        check_inner(inner_state, params)
        return SparseState(
            inner_state=zero_state_outside(inner_state, params, _sparse(plan, masks)),
            masks=masks,
            step=jnp.zeros((), jnp.int32),
            deferred=jnp.zeros((), bool),
            unmasked=jnp.zeros((), bool),
        )

    def update(
        self, gradients: Tree, state: SparseState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, SparseState]:
        """The updates of one optimizer step, and the state after it.

        Args:
            gradients: dense, of the parameters' structure.
            state: what ``init`` or the last ``update`` gave.
            params: the parameters, which are needed.
            extra_args: for the inner transformation.

        Raises:
            ValueError: for arrays that do not fit, or parameters that are not masked.
        """
        if params is None:
            raise ValueError("params is missing: call update(gradients, opt_state, params).")
        plan, keys = self._plan_of(self._choose(params))
        check_arrays(plan, gradients, state.masks)
        weights, dense = (_sparse(plan, named_leaves(tree)) for tree in (params, gradients))
        masks = _sparse(plan, state.masks)
        due, number = self._read_clock(state)
        finite, unmasked = look(state, due, weights, gradients if self._recipe.reads_gradient else None)
        moving = due & finite

        updates, inner_state = self._inner.update(
            zero_outside(gradients, masks), state.inner_state, params, **extra_args
        )
        replaces = self._recipe.on_update == "replace"
        if replaces:
            # Adding minus zero changes no bit, not even that of a minus zero.
            updates = jax.tree.map(lambda u: jnp.where(moving, -jnp.zeros_like(u), u), updates)
            inner_state = jax.tree.map(functools.partial(jnp.where, moving), state.inner_state, inner_state)

        own = _sparse(plan, named_leaves(updates))
        chosen_on = weights if replaces else {name: _applied(weights[name], own[name]) for name in masks}
        new_masks = masks
        if self._schedule.updates:
            move = functools.partial(self._moved, plan, jnp.asarray(keys)[number], number, chosen_on, dense, masks)
            new_masks = when(moving, move, lambda: masks)
        kept = {name: masks[name] & new_masks[name] for name in masks}
        projected = {name: _project(own[name], weights[name], kept[name]) for name in masks}
        return with_leaves(updates, projected), SparseState(
            inner_state=zero_state_outside(inner_state, params, kept),
            masks={**state.masks, **new_masks},
            step=state.step + 1,
            deferred=due & ~finite & (state.step + 1 < self._schedule.end),
            unmasked=unmasked,
        )

    def _read_clock(self, state: SparseState) -> tuple[Array, Array]:
        """Whether an update is due, and its number: `rigl_core.clock.Clock` for a step that may be traced."""
        schedule = self._schedule
        latest = jnp.minimum((state.step - schedule.begin) // schedule.every, schedule.updates - 1)
        return schedule.fires(state.step) | state.deferred, latest

    def _moved(
        self, plan: Plan, keys: Array, number: Array, weights: Arrays, gradients: Arrays, masks: Arrays
    ) -> Arrays:
        """The masks after update ``number``."""
        drop_counts = jnp.asarray(plan.drop_counts)[number]
        criteria = criteria_of(self._recipe)
        moved = {}
        for i in plan.sparse_layers:
            name = plan.layers[i].name
            moved[name] = moved_mask(
                criteria, weights[name], gradients[name], keys[i], masks[name], plan.active[i], drop_counts[i]
            )
        return moved

    def _make_plan(self, layers: tuple[Layer, ...]) -> tuple[Plan, npt.NDArray[np.int32]]:
        """The plan, and the random keys [update, layer, 2]: zeros where no criterion draws."""
        plan = make_plan(self._recipe, layers)
        shape = (*plan.drop_counts.shape, 2)
        if not self._recipe.reads_random:
            return plan, np.zeros(shape, np.int32)
        return plan, random_key_table(self._recipe.seed, [layer.name for layer in layers], shape[0])


def _sparse(plan: Plan, arrays: Mapping[str, Any]) -> Arrays:
    """Of the arrays by name, those of the sparse layers."""
    return {plan.layers[i].name: arrays[plan.layers[i].name] for i in plan.sparse_layers}


def _applied(weight: Array, update: Array) -> Array:
    """The weight as `optax.apply_updates` will make it."""
    return (weight + update).astype(weight.dtype)


def _project(update: Array, weight: Array, kept: Array) -> Array:
    """The update where the topology keeps the weight; elsewhere the one that makes it exactly zero."""
    if update.dtype != weight.dtype:
        update = update.astype(jnp.promote_types(update.dtype, weight.dtype))
    return jnp.where(kept, update, -weight.astype(update.dtype))
