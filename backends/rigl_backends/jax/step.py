"""One optimizer step: a gradient step and a topology update, of which most steps take only the first."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rigl_backends.jax.branches import once, with_dtypes_of
from rigl_backends.jax.pools import Memory, Part, choice_of, moved_pool
from rigl_backends.jax.sparse_layer import applied, hide_shadow, noisy, observe, whole_weight
from rigl_backends.jax.trees import Tree, active, is_traced, named_leaves, weights_of_leaves, with_leaves, zero_outside
from rigl_backends.jax.zeros import stays_zero
from rigl_core.plan import Plan

Arrays = dict[str, Array]
"""Arrays by layer name, in the layers' shapes."""


class Flow(NamedTuple):
    """What changes in a step.

    Attributes:
        updates: the dense gradients at first; then the updates, before what is outside the masks is made zero.
        inner_state: of the inner transformation.
        masks: of the sparse layers.
        memory: what the recipe remembers of each of them.
    """

    updates: Tree
    inner_state: Any
    masks: Arrays
    memory: dict[str, Memory]


class PartFlow(NamedTuple):
    """What changes in a topology update of one layer.

    Attributes:
        update: the dense gradient at first, if the topology update replaces the gradient step; else the update so far.
        mask: its topology.
        memory: what the recipe remembers.
        state: the arrays that the inner transformation holds of its weights.
    """

    update: Array
    mask: Array
    memory: Memory
    state: list[Array]


@dataclass(frozen=True)
class Step:
    """What stays as it is in a step.

    Attributes:
        plan: of the training.
        inner: makes updates of gradients.
        number: int32 scalar, of the step.
        moving: bool scalar, whether the topology moves.
        update: int32 scalar, of the topology update, if one is due.
        keys: int32 array (layers, 2), the update's random keys; None if it draws nothing.
        gradients: dense, of the parameters' structure.
        params: the parameters.
        extra_args: for the inner transformation.
        callbacks: whether NumPy may choose connections.
    """

    plan: Plan
    inner: Any
    number: Array
    moving: Array
    update: Array
    keys: Array | None
    gradients: Tree
    params: Tree
    extra_args: Mapping[str, Any]
    callbacks: bool

    def take(self, flow: Flow) -> Flow:
        """The whole step."""
        recipe = self.plan.recipe
        if "momentum" in recipe.memories:
            dense = named_leaves(self.gradients)
            memory = {name: observe(own, dense[name], recipe.momentum) for name, own in flow.memory.items()}
            flow = flow._replace(memory=memory)
        if recipe.schedule is None or not recipe.schedule.updates:
            return self._descend(flow)
        if not self._replaces:
            return once(self.moving, self._move, self._descend(flow))
        if is_traced(self.moving):
            flow = _as_wide_as(flow, jax.eval_shape(self._descend, flow))
        return once(~self.moving, self._descend, once(self.moving, self._move, flow))

    def settled(self, inner_state: Any) -> list[bool] | None:
        """For each leaf of the inner state whether a step leaves it zero outside the masks, if a trace can tell."""
        trees = self.gradients, inner_state, self.params
        if not is_traced(trees):
            return None
        update = functools.partial(self.inner.update, **self.extra_args)
        return stays_zero(update, *trees, names=self._weights)

    def _descend(self, flow: Flow) -> Flow:
        """The gradient step, which sees active weights only, or, if all of them learn, all."""
        recipe, masks, memory = self.plan.recipe, flow.masks, flow.memory
        gradients, params, weights = with_dtypes_of(self.gradients, flow.updates), self.params, self._weights
        if self._learn_unseen:
            weights = {name: whole_weight(weight, masks[name], memory[name]) for name, weight in weights.items()}
            params = with_leaves(params, weights)
        else:
            gradients, params = (zero_outside(tree, masks) for tree in (gradients, params))
        if recipe.changes_gradient and not self._learn_unseen:
            dense = named_leaves(gradients)
            added = {
                name: noisy(recipe, name, weight, dense[name], masks[name], self.number)
                for name, weight in weights.items()
            }
            gradients = with_leaves(gradients, added)
        updates, inner_state = self.inner.update(gradients, flow.inner_state, params, **self.extra_args)
        own = {name: _widened(update, weights[name].dtype) for name, update in self._sparse(updates).items()}
        if self._learn_unseen:
            memory = {
                name: hide_shadow(applied(weights[name], own[name]), masks[name], memory[name]) for name in weights
            }
        return Flow(with_leaves(updates, own), inner_state, masks, memory)

    def _move(self, flow: Flow) -> Flow:
        """The topology update: in place of the gradient step, or after it.

        Pool by pool, each behind a branch of its own, so that the next one's temporary arrays take the same memory.
        """
        updates, masks, memory = self._sparse(flow.updates), dict(flow.masks), dict(flow.memory)
        state, structure = jax.tree.flatten(flow.inner_state)
        held = self._held(flow.inner_state)
        for number, pool in enumerate(self.plan.pools):
            names = [self.plan.layers[i].name for i in pool]
            own = [PartFlow(updates[name], masks[name], memory[name], [state[i] for i in held[name]]) for name in names]
            change = functools.partial(self._move_pool, number)
            for name, part in zip(names, once(self.moving, change, own), strict=True):
                updates[name], masks[name], memory[name] = part.update, part.mask, part.memory
                for i, leaf in zip(held[name], part.state, strict=True):
                    state[i] = leaf
        others = jax.tree.map(_no_update, flow.updates) if self._replaces else flow.updates
        return Flow(with_leaves(others, updates), jax.tree.unflatten(structure, state), masks, memory)

    def _move_pool(self, number: int, parts: list[PartFlow]) -> list[PartFlow]:
        """The layers of one pool after the topology update."""
        plan, reads = self.plan, self.plan.recipe.reads_gradient
        layers = [plan.layers[i] for i in plan.pools[number]]
        weights, gradients, before = self._weights, named_leaves(self.gradients), []
        for i, layer, part in zip(plan.pools[number], layers, parts, strict=True):
            weight, gradient = weights[layer.name], gradients[layer.name]
            if self._replaces:
                gradient = part.update.astype(gradient.dtype)
            else:
                weight = applied(weight, part.update)
            whole = whole_weight(weight, part.mask, part.memory)
            key = None if self.keys is None else self.keys[i]
            before.append(Part(whole, part.mask, part.memory, gradient if reads else None, key))
        row = jnp.minimum(self.update, len(plan.keep_counts) - 1)
        keep, grow, digits = (jnp.asarray(table)[row] for table in (plan.keep_counts, plan.grow_counts, plan.digits))
        choice = choice_of(plan.recipe, layers, callbacks=self.callbacks)
        moved = moved_pool(choice, before, keep[number], grow[number], digits)
        after = []
        for layer, part, new in zip(layers, parts, moved, strict=True):
            stay = _no_update(part.update) if self._replaces else part.update
            start = (new.weight - weights[layer.name]).astype(stay.dtype)  # exactly: one of the two is 0
            state = [active(own, new.survivors) for own in part.state]
            after.append(PartFlow(jnp.where(new.survivors, stay, start), new.mask, new.memory, state))
        return after

    def _held(self, inner_state: Any) -> dict[str, list[int]]:
        """Which leaves of the inner state an update changes, by layer; those of weights that learn unseen stay."""
        held: dict[str, list[int]] = {name: [] for name in self._weights}
        owners = [] if self._learn_unseen else weights_of_leaves(inner_state, self.params)
        for i, owner in enumerate(owners):
            if owner in held:
                held[owner].append(i)
        return held

    @property
    def _learn_unseen(self) -> bool:
        return "shadow" in self.plan.recipe.memories

    @property
    def _replaces(self) -> bool:
        return self.plan.recipe.on_update == "replace"

    @property
    def _weights(self) -> Arrays:
        return self._sparse(self.params)

    def _sparse(self, tree: Tree) -> Arrays:
        """Of a tree of the parameters' structure the arrays of the sparse layers."""
        arrays = named_leaves(tree)
        return {self.plan.layers[i].name: arrays[self.plan.layers[i].name] for i in self.plan.sparse_layers}


def _no_update(update: Array) -> Array:
    """Minus zero, which changes no bit, not even that of a minus zero."""
    return -jnp.zeros_like(update)


def _widened(array: Array, dtype: Any) -> Array:
    """The array in a dtype that holds its numbers and those of another."""
    return array if array.dtype == dtype else array.astype(jnp.promote_types(array.dtype, dtype))


def _as_wide_as(flow: Flow, after: Flow) -> Flow:
    """What goes into a loop, in dtypes that hold what comes out of it."""
    wide: Flow = jax.tree.map(lambda x, y: _widened(x, y.dtype), flow, after)
    return wide
