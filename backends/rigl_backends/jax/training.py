"""One step of a sparse training: a pure function from one state to the next."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rigl_backends.jax.active import Moved
from rigl_backends.jax.active_step import ActiveStep
from rigl_backends.jax.branches import changed_if, either
from rigl_backends.jax.checks import look
from rigl_backends.jax.handle import SparseState, memory_by_layer, with_memory
from rigl_backends.jax.layer import Memory, SparseLayer, applied, in_shape, move_pool, no_update, zero_weight_outside
from rigl_backends.jax.state import Held, NewState, fresh_outside, fresh_state_outside, leaves_at, with_leaves_at
from rigl_backends.jax.trees import Tree, cast_like, named_leaves, widened, with_leaves, zero_tree_outside
from rigl_core.adapter import GRADIENT_NOISE, Clock, Counts, Namespace, Plan, Rule, random_key


@dataclass(frozen=True)
class SparseStep:
    """A gradient step, a topology update, or both.

    `gradient_step` and `move` map gradients and a state to updates and the next state, as optax does.

    Attributes:
        plan: of the training.
        inner: makes updates of gradients.
        clock: before the step.
        keys: int32 array (layers, 2), the random keys of a topology update; None if it draws nothing.
        gradients: dense, of the parameters' structure; of layers that hold active weights, those of these.
        params: the parameters; of layers that hold active weights, these.
        extra_args: for the inner transformation.
        xp: the namespace in which connections are chosen.
        held: what the inner transformation holds for each weight.
        active: the layers that hold active weights alone.
    """

    plan: Plan
    inner: Any
    clock: Clock
    keys: Array | None
    gradients: Tree
    params: Tree
    extra_args: Mapping[str, Any]
    xp: Namespace
    held: Held
    active: ActiveStep

    def take_step(self, state: SparseState) -> tuple[Array, Tree, SparseState]:
        """The updates, and the state after the step; of active weights that moved, the new values as their updates."""
        due, read = self.clock.due, self.gradients if self._rule.reads_gradient else None
        callbacks, recipe = self.xp.on_host is not None, self.plan.recipe
        state = state._replace(unmasked=state.unmasked | self.active.strangers)
        moves, unmasked = look(state, recipe, due, self._weights, read, callbacks=callbacks)
        made, updates, after = self._changed(due & moves, state)
        own, masks, clock = named_leaves(updates), dict(after.masks), self.clock.next(waits=due & ~made)
        own = {name: zero_weight_outside(own[name], weight, masks[name]) for name, weight in self._weights.items()}
        masks |= self.active.at_next({name: masks[name] for name in self.active.topologies}, clock)
        inner_state = self._fresh_state_outside(after)
        told = {"step": clock.step, "deferred": clock.deferred, "unmasked": unmasked}
        return made, with_leaves(updates, own), after._replace(inner_state=inner_state, masks=masks, **told)

    def _changed(self, moving: Array, state: SparseState) -> tuple[Array, Tree, SparseState]:
        """Whether the topology moved, the updates before weights outside become zero, and what changed in the state."""
        if "momentum" in self._rule.memories:
            layers = self._layers(state)
            for name, layer in layers.items():
                layer.observe(layer.flat(self._dense[name]))
            state = self._with_memory(state, layers)
        if not self.clock.schedule.updates:
            return moving, *self.gradient_step(self.gradients, state)
        number, still = self.clock.update, self.held.still
        if self._replaces:
            made, moved = self.active.move(moving, number, {}, still)
            move = functools.partial(self.move, made, moved)
            return made, *either(made, move, self.gradient_step, self.gradients, state)
        updates, state = self.gradient_step(self.gradients, state)
        made, moved = self.active.move(moving, number, named_leaves(updates), still)
        return made, *changed_if(made, functools.partial(self.move, made, moved), updates, state)

    def gradient_step(self, gradients: Tree, state: SparseState) -> tuple[Tree, SparseState]:
        """The optimizer's part: it sees active weights only or, where all weights learn, all of them."""
        rule, gradients, params = self._rule, cast_like(self.gradients, gradients), self.params
        layers = self._layers(state) if rule.shadow or rule.changes_gradient else {}
        if rule.shadow:
            for layer in layers.values():
                layer.show_shadow()
            params = self._with(params, {name: layer.weight for name, layer in layers.items()})
        else:
            dense, step = named_leaves(gradients), self.clock.step
            noisy = {name: layer.noisy(layer.flat(dense[name]), step) for name, layer in layers.items()}
            masks = {name: state.masks[name] for name in self._weights}
            gradients, params = (zero_tree_outside(tree, masks) for tree in (self._with(gradients, noisy), params))
        updates, inner_state = self.inner.update(gradients, state.inner_state, params, **self.extra_args)
        own = self._wide(updates)
        if rule.shadow:
            for name, layer in layers.items():
                layer.weight = applied(layer.weight, layer.flat(own[name]))
                layer.hide_shadow()
            state = self._with_memory(state, layers)
        return with_leaves(updates, own), state._replace(inner_state=inner_state)

    def move(
        self, moving: Array, moved: Mapping[str, Moved], given: Tree, state: SparseState
    ) -> tuple[Tree, SparseState]:
        """The topology update, pool by pool.

        Each pool has a loop of its own, so that the temporary arrays of the next pool take the same memory.

        Args:
            moving: bool scalar, which is true whenever this runs. Compilers cannot know that, so they keep the loops.
            moved: the layers of active weights after it, whose new values take the place of their updates.
            given: the gradients, if the topology update replaces the gradient step; else the updates of that step.
            state: before.
        """
        own, masks, memory = self._wide(given), dict(state.masks), memory_by_layer(state, self._weights)
        held = {name: leaves_at(state.inner_state, self._positions[name]) for name in (*self._weights, *moved)}
        changing: tuple[dict[str, Any], ...] = (own, masks, memory, held)
        tables, update = jax.tree.map(jnp.asarray, self.plan.tables), self.clock.update
        for number, pool in enumerate(self.plan.pools):
            if self.plan.layers[pool[0]].name not in self._weights:
                continue
            names = [self.plan.layers[i].name for i in pool]
            before = [[arrays[name] for name in names] for arrays in changing]
            move_pool = functools.partial(self._move_pool, pool, tables.counts(update, number))
            after = changed_if(moving, move_pool, *before)
            for arrays, new in zip(changing, after, strict=True):
                arrays.update(zip(names, new, strict=True))
        values, topologies, state_of_active = self.active.apply(moved, held, self._fresh)
        own, masks, held = own | values, masks | topologies, held | state_of_active
        others = jax.tree.map(no_update, given) if self._replaces else given
        leaves = {i: leaf for name in held for i, leaf in zip(self._positions[name], held[name], strict=True)}
        inner_state = with_leaves_at(state.inner_state, leaves)
        return with_leaves(others, own), with_memory(state._replace(inner_state=inner_state, masks=masks), memory)

    def _move_pool(self, pool: Sequence[int], counts: Counts, *before: list[Any]) -> tuple[list[Any], ...]:
        """A pool's topology update.

        Args:
            pool: positions of the layers.
            counts: of the topology update.
            *before: lists of what `move` was given, masks, memory and optimizer state, layer by layer.

        Returns:
            Lists of updates, masks, memory and optimizer state.
        """
        seen = [self._before(*one) for one in zip(pool, *before[:3], strict=True)]
        layers, gradients, updates = map(list, zip(*seen, strict=True))
        moved = move_pool(layers, gradients, counts)
        after = [self._after(*one) for one in zip(pool, updates, moved, before[3], strict=True)]
        return tuple(map(list, zip(*after, strict=True)))

    def _before(self, i: int, given: Array, mask: Array, memory: Memory) -> tuple[SparseLayer, Array | None, Array]:
        """A layer, its dense gradient, and its update, before the topology moves.

        The gradient is None for a layer that the inner transformation does not train.
        """
        name, key = self.plan.layers[i].name, None if self.keys is None else self.keys[i]
        weight, gradient, update = self._weights[name], self._dense[name], given
        if self._replaces:
            gradient, update = given.astype(gradient.dtype), no_update(given)
        else:
            weight = applied(weight, update)
        layer = self._layer(i, weight, mask, memory, key)
        return layer, None if name in self.held.still else layer.flat(gradient), update

    def _after(
        self, i: int, update: Array, layer: SparseLayer, held: list[Array]
    ) -> tuple[Array, Array, Memory, list[Array]]:
        """A layer's update, mask, memory and optimizer state, after the topology has moved."""
        name = self.plan.layers[i].name
        weight = self._weights[name]
        mask, survivors, new, memory = in_shape(weight, (layer.mask, layer.survivors, layer.weight, layer.memory))
        change = (new - weight).astype(update.dtype)  # exactly: where it counts, one of the two is 0
        if not self._rule.shadow:
            held = fresh_outside(held, self._fresh(name, new), survivors)
        return jnp.where(survivors, update, change), mask, memory, held

    def _fresh(self, name: str, values: Array) -> list[Array]:
        """What the optimizer holds for new weights of a layer."""
        return self._new_state.of({name: values}, self._positions[name])

    def _fresh_state_outside(self, state: SparseState) -> Any:
        """The inner state as for new weights outside the masks, unless weights learn there."""
        if self._rule.shadow:
            return state.inner_state
        return fresh_state_outside(state.inner_state, self._weights, state.masks, self.held, self._new_state)

    def _layers(self, state: SparseState) -> dict[str, SparseLayer]:
        """The sparse layers, with the keys of a gradient's noise."""
        layers, memory = {}, memory_by_layer(state, self._weights)
        for i in self._masked:
            name = self.plan.layers[i].name
            key = random_key(self.plan.recipe.seed, name, GRADIENT_NOISE)
            layers[name] = self._layer(i, self._weights[name], state.masks[name], memory[name], key)
        return layers

    def _layer(self, i: int, weight: Array, mask: Array, memory: Memory, key: Any) -> SparseLayer:
        return SparseLayer.of(self.plan.layers[i], self._rule, weight, mask, memory, key, self.xp)

    def _with(self, tree: Tree, arrays: Mapping[str, Array]) -> Tree:
        """The tree with other numbers in sparse layers."""
        return with_leaves(tree, {name: in_shape(self._weights[name], own) for name, own in arrays.items()})

    def _with_memory(self, state: SparseState, layers: Mapping[str, SparseLayer]) -> SparseState:
        """The state with the memory of these layers."""
        return with_memory(state, {name: in_shape(self._weights[name], own.memory) for name, own in layers.items()})

    def _wide(self, tree: Tree) -> dict[str, Array]:
        """The sparse layers' arrays in a tree, in dtypes that also hold numbers of the weights."""
        arrays = named_leaves(tree)
        return {name: widened(arrays[name], weight.dtype) for name, weight in self._weights.items()}

    @property
    def _rule(self) -> Rule:
        return self.plan.recipe.rule

    @property
    def _positions(self) -> Mapping[str, Sequence[int]]:
        return self.held.positions

    @cached_property
    def _new_state(self) -> NewState:
        return NewState(self.inner.init, self.params, self.held.numbers)

    @property
    def _replaces(self) -> bool:
        return self._rule.on_update == "replace"

    @property
    def _masked(self) -> list[int]:
        """The positions of the sparse layers that have masks."""
        return [i for i in self.plan.sparse_layers if self.plan.layers[i].name not in self.active.weights]

    @cached_property
    def _weights(self) -> dict[str, Array]:
        """Those of the layers that have masks."""
        arrays = named_leaves(self.params)
        return {self.plan.layers[i].name: arrays[self.plan.layers[i].name] for i in self._masked}

    @cached_property
    def _dense(self) -> dict[str, Array]:
        return named_leaves(self.gradients)
