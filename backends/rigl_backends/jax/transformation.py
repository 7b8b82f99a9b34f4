"""`SparseTraining`: the transformation that `sparsify` gives."""

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
from jax.typing import ArrayLike

from rigl_backends.jax.active_step import active_step, changes
from rigl_backends.jax.active_trees import with_shapes, with_values
from rigl_backends.jax.checks import check_arrays
from rigl_backends.jax.handle import SparseState
from rigl_backends.jax.layer import Memory
from rigl_backends.jax.layers import other_sizes
from rigl_backends.jax.start import start_pool
from rigl_backends.jax.state import Held, check_inner, held_by
from rigl_backends.jax.storage import first_topologies, held_values
from rigl_backends.jax.training import SparseStep
from rigl_backends.jax.trees import Tree, named_leaves, shape_of, zero_tree_outside
from rigl_backends.jax.whole import calling_namespace, whole_namespace
from rigl_backends.jax.written import check_written, written
from rigl_core.adapter import (
    NEVER,
    Clock,
    Initial,
    Layer,
    Plan,
    Recipe,
    Storage,
    errors,
    make_plan,
    random_key_table,
    start_from,
    warn_about,
)


class SparseTraining:
    """``init`` and ``update`` of the transformation that `sparsify` gives.

    Args:
        inner: what makes updates of gradients.
        recipe: how to train sparsely.
        choose: the layers of a parameter tree.
        scores: arrays by layer name that choose the initial topology, if the recipe asks for them.
        callbacks: whether compiled programs may call NumPy.
        storage: how layers are held.
        chooses: whether the layers are not those that the user gave.
        initial: the masks to begin with, if the user gave some.
    """

    def __init__(
        self,
        inner: optax.GradientTransformation,
        recipe: Recipe,
        choose: Callable[[Tree], tuple[Layer, ...]],
        scores: Mapping[str, ArrayLike] | None,
        callbacks: bool,
        storage: Storage,
        *,
        chooses: bool,
        initial: Initial | None = None,
    ) -> None:
        self.inner = optax.with_extra_args_support(inner)
        self._recipe, self._rule = recipe, recipe.rule
        self._choose, self._scores, self._chooses, self.storage = choose, scores, chooses, storage
        self._initial = initial
        self._xp = calling_namespace if callbacks else whole_namespace
        schedule = recipe.schedule or NEVER
        # A step is an int32, which never gets further than this.
        self.schedule = dataclasses.replace(schedule, **{k: min(n, 2**31 - 1) for k, n in vars(schedule).items()})
        self._planned = functools.lru_cache(self._make_plan)
        self._held: dict[Any, Held] = {}

    def init(self, params: Tree) -> SparseState:
        """The state before the first step."""
        plan = self.plan_of(params)
        scores = self.scores_for(plan)
        errors.check_scores(plan, scores)
        topologies = first_topologies(self, plan, params, scores)
        params = held_values(params, topologies)
        weights, started = named_leaves(params), dict[str, tuple[Array, Memory]]()
        for pool in plan.pools:
            if plan.layers[pool[0]].name not in topologies:
                started |= start_pool(plan, pool, weights, scores or {})
        masks = {name: mask for name, (mask, _) in started.items()}
        inner_state = self.inner.init(params if self._rule.shadow else zero_tree_outside(params, masks))
        check_inner(inner_state, params)
        warn_about(dataclasses.replace(plan, others=other_sizes(params, plan.layers) if self._chooses else {}))
        ones = {layer.name: jnp.ones((), bool) for layer in plan.layers}
        return SparseState(
            inner_state=inner_state,
            masks={**ones, **masks, **topologies},
            memory={kind: {name: own[kind] for name, (_, own) in started.items()} for kind in self._rule.memories},
            step=jnp.zeros((), jnp.int32),
            deferred=jnp.zeros((), bool),
            unmasked=jnp.zeros((), bool),
            recipe=written(plan.recipe),
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
        plan, keys = self._planned(self._choose(with_shapes(params)))
        check_written(state.recipe, plan.recipe)
        active, own_gradients = active_step(plan, gradients, params, state.masks)
        values = with_values(params)
        check_arrays(plan, own_gradients, state.masks)
        clock = Clock(self.schedule, state.step, state.deferred)
        own_keys = None if keys is None else jnp.asarray(keys)[clock.update]
        held = self.held_by(plan, own_gradients, state.inner_state, values, extra_args)
        step = SparseStep(plan, self.inner, clock, own_keys, own_gradients, values, extra_args, self._xp, held, active)
        made, updates, after = step.take_step(state)
        return changes(params, updates, active, after.masks, made), after

    def plan_of(self, params: Tree) -> Plan:
        """The plan for these parameters."""
        return self._planned(self._choose(with_shapes(params)))[0]

    def scores_for(self, plan: Plan) -> Mapping[str, Any] | None:
        """What chooses the initial topology, by layer name: the user's scores, or given masks."""
        return start_from(self._recipe, plan.layers, self._initial, self._scores)[1]

    def held_by(self, plan: Plan, *trees: Any) -> Held:
        """What the inner transformation holds for each weight: read once for trees of the same shapes.

        ``trees`` are gradients, state of the inner transformation, parameters, and extra arguments.
        """
        leaves, structure = jax.tree.flatten(trees)
        key = structure, tuple((shape_of(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves)
        if key not in self._held:
            names = [plan.layers[i].name for i in plan.sparse_layers]
            self._held[key] = held_by(self.inner, *trees, names=names)
        return self._held[key]

    def _make_plan(self, layers: tuple[Layer, ...]) -> tuple[Plan, npt.NDArray[np.int32] | None]:
        """The plan, and the random keys [update, layer, 2], if updates draw."""
        names = [layer.name for layer in layers]
        keys = random_key_table(self._recipe.seed, names, self.schedule.updates) if self._rule.reads_random else None
        recipe, _ = start_from(self._recipe, layers, self._initial, self._scores)
        return make_plan(recipe, layers), keys
