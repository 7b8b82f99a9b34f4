"""A sparse training in JAX: pure functions from one state to the next."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax import Array
from jax.typing import ArrayLike

from rigl_backends.jax.checks import check_arrays, check_inner, look
from rigl_backends.jax.namespace import jax_namespace as xp
from rigl_backends.jax.pools import Memory, Part, choice_of, start_pool
from rigl_backends.jax.sparse_layer import project
from rigl_backends.jax.state import SparseState, by_kind, by_layer
from rigl_backends.jax.step import Arrays, Flow, Step
from rigl_backends.jax.trees import Tree, named_leaves, with_leaves, zero_state_outside
from rigl_core.arrays.random import INITIAL, random_key, random_key_table
from rigl_core.model.layers import Layer
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.plan import Plan, make_plan
from rigl_core.recipe import Recipe
from rigl_core.step import errors


class SparseTraining:
    """``init`` and ``update`` of `sparsify`'s transformation.

    Args:
        inner: what makes updates of gradients.
        recipe: how to train sparsely.
        choose: the layers of a parameter tree.
        scores: arrays by layer name that choose the initial topology, if the recipe asks for them.
        callbacks: whether compiled programs may call NumPy.
    """

    def __init__(
        self,
        inner: optax.GradientTransformation,
        recipe: Recipe,
        choose: Callable[[Tree], tuple[Layer, ...]],
        scores: Mapping[str, ArrayLike] | None = None,
        *,
        callbacks: bool = True,
    ) -> None:
        self._inner = optax.with_extra_args_support(inner)
        self._recipe = recipe
        self._choose = choose
        self._scores = scores
        self._callbacks = callbacks
        schedule = dataclasses.asdict(recipe.schedule or UpdateSchedule(end=0))
        # A step is an int32, which never gets further than this.
        self._schedule = UpdateSchedule(**{field: min(number, 2**31 - 1) for field, number in schedule.items()})
        self._plan_of = functools.lru_cache(self._make_plan)

    def init(self, params: Tree) -> SparseState:
        """The state before the first step."""
        plan, _ = self._plan_of(self._choose(params))
        errors.check_scores(plan, self._scores)
        masks, memory = {layer.name: jnp.ones((), bool) for layer in plan.layers}, {}
        for pool in plan.pools:
            for i, (mask, own) in zip(pool, self._start(plan, pool, named_leaves(params)), strict=True):
                masks[plan.layers[i].name], memory[plan.layers[i].name] = mask, own
        inner_state = self._inner.init(params)
        check_inner(inner_state, params)
        return SparseState(
            inner_state=self._zeroed(inner_state, params, _sparse(plan, masks)),
            masks=masks,
            memory=by_kind(self._recipe.memories, memory),
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
        weights, masks = _sparse(plan, named_leaves(params)), _sparse(plan, state.masks)
        due, number = self._read_clock(state)
        seen = gradients if self._recipe.reads_gradient else None
        finite, unmasked = look(state, due, weights, seen, callbacks=self._callbacks)

        own_keys = None if keys is None else jnp.asarray(keys)[number]
        inputs = own_keys, gradients, params, extra_args, self._callbacks
        step = Step(plan, self._inner, state.step, due & finite, number, *inputs)
        flow = step.take(Flow(gradients, state.inner_state, masks, by_layer(state.memory, masks)))

        own = named_leaves(flow.updates)
        projected = {name: project(own[name], weight, flow.masks[name]) for name, weight in weights.items()}
        return with_leaves(flow.updates, projected), SparseState(
            inner_state=self._zeroed(flow.inner_state, params, flow.masks, step.settled(state.inner_state)),
            masks={**state.masks, **flow.masks},
            memory=by_kind(self._recipe.memories, flow.memory),
            step=state.step + 1,
            deferred=due & ~finite & (state.step + 1 < self._schedule.end),
            unmasked=unmasked,
        )

    def _start(self, plan: Plan, pool: tuple[int, ...], weights: Mapping[str, Array]) -> list[tuple[Array, Memory]]:
        """The initial topology of a pool."""
        recipe, layers = self._recipe, [plan.layers[i] for i in pool]
        draws = recipe.initial.reads_random or "sign" in recipe.memories
        parts = []
        for layer in layers:
            weight, scores = weights[layer.name], (self._scores or {}).get(layer.name)
            parts.append(
                Part(
                    weight,
                    key=np.array(random_key(recipe.seed, layer.name, INITIAL), np.int32) if draws else None,
                    scores=None if scores is None else jnp.asarray(scores, xp.widen(weight).dtype),
                )
            )
        active = np.array([plan.initial_active[i] for i in pool], np.int32)
        started: list[tuple[Array, Memory]] = start_pool(choice_of(recipe, layers), parts, active)
        return started

    def _read_clock(self, state: SparseState) -> tuple[Array, Array]:
        """Whether an update is due, and its number: `rigl_core.step.clock.Clock` for a step that may be traced."""
        schedule = self._schedule
        latest = jnp.minimum((state.step - schedule.begin) // schedule.every, schedule.updates - 1)
        return schedule.fires(state.step) | state.deferred, latest

    def _zeroed(self, inner_state: Any, params: Tree, masks: Arrays, settled: Sequence[bool] | None = None) -> Any:
        """Zeros outside the masks, but for the state of weights that learn there."""
        if "shadow" in self._recipe.memories:
            return inner_state
        return zero_state_outside(inner_state, params, masks, settled)

    def _make_plan(self, layers: tuple[Layer, ...]) -> tuple[Plan, npt.NDArray[np.int32] | None]:
        """The plan, and the random keys [update, layer, 2], if updates draw."""
        plan = make_plan(self._recipe, layers)
        if not self._recipe.reads_random:
            return plan, None
        return plan, random_key_table(self._recipe.seed, [layer.name for layer in layers], self._schedule.updates)


def _sparse(plan: Plan, arrays: Mapping[str, Any]) -> Arrays:
    """Of the arrays by name, those of the sparse layers."""
    return {plan.layers[i].name: arrays[plan.layers[i].name] for i in plan.sparse_layers}
