"""The layers of active weights in a step. Everything else of the step sees their values as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rigl_backends.jax.active import Mover, Moving
from rigl_backends.jax.active_trees import active_weights, check_held_alike, is_active, with_values
from rigl_backends.jax.active_weight import ActiveWeight, Topology
from rigl_backends.jax.branches import changed_if
from rigl_backends.jax.change import change_of
from rigl_backends.jax.layer import applied
from rigl_backends.jax.state import Held, NewState, fresh_outside, leaves_at, with_leaves_at
from rigl_backends.jax.trees import Tree, named_leaves, shape_of, with_leaves
from rigl_core.adapter import Clock, Plan


@dataclass(frozen=True)
class ActiveStep:
    """What a step does with the layers of active weights.

    Attributes:
        plan: of the training.
        weights: by layer name.
        topologies: before the step, by layer name.
        gradients: of the active weights, or dense, by layer name.
    """

    plan: Plan
    weights: Mapping[str, ActiveWeight]
    topologies: Mapping[str, Topology]
    gradients: Mapping[str, Array]

    @property
    def strangers(self) -> Array:
        """Whether weights belong to other topologies than the state's: a bool scalar."""
        same = [jnp.all(weight.marks[:2] == self.topologies[name].marks[:2]) for name, weight in self.weights.items()]
        return ~jnp.all(jnp.stack(same)) if same else jnp.zeros((), bool)

    def move(
        self,
        moving: Array,
        update: Array,
        updates: Mapping[str, Array],
        inner_state: Any,
        held: Held,
        new_state: Callable[[], NewState],
    ) -> tuple[Array, dict[str, Moving]]:
        """A topology update, if it is due and all gradients are finite.

        Args:
            moving: whether it is due, and may be made.
            update: its number.
            updates: by which a gradient step changes the weights before, by name; none if there is no such step.
            inner_state: the optimizer's state.
            held: what of this belongs to each weight.
            new_state: gives what the optimizer holds for new weights.

        Returns:
            Whether it was made, and the layers after it.
        """
        if not self.weights:
            return moving, {}
        names = [*self.weights]
        own = {name: weight.values for name, weight in self.weights.items()}
        values = {name: applied(one, updates[name]) if name in updates else one for name, one in own.items()}
        before = [self._before(name, values[name], leaves_at(inner_state, held.positions[name])) for name in names]
        gradients = [None if name in held.still else self.gradients[name] for name in names]
        positions = {layer.name: i for i, layer in enumerate(self.plan.layers)}
        mover = Mover(self.plan, [(positions[name], one.layout, one.link) for name, one in self.weights.items()])

        def change(_: Array, before: list[Moving]) -> tuple[Array, list[Moving]]:
            made, after = mover.move(update, before, gradients)
            return made, [with_fresh(name, one) for name, one in zip(names, after, strict=True)]

        def with_fresh(name: str, one: Moving) -> Moving:
            fresh = new_state().of({name: one.values}, held.positions[name])
            return replace(one, held=fresh_outside(one.held, fresh, ~one.is_new))

        made, after = changed_if(moving, change, moving, before)
        return made, dict(zip(names, after, strict=True))

    def _before(self, name: str, values: Array, held: list[Array]) -> Moving:
        own = self.topologies[name]
        return Moving(values, held, own.columns, own.pointers, own.marks, jnp.zeros(values.shape, bool))

    def topologies_after(self, after: Mapping[str, Moving], clock: Clock) -> dict[str, Topology]:
        """The topologies after a step, which tell whether the next one reads the dense gradient.

        Args:
            after: the layers after the step.
            clock: after the step.
        """
        reads = jnp.asarray(clock.due & self.plan.recipe.rule.reads_gradient)
        number = jnp.where(reads, clock.step + 1, 0).astype(jnp.float32).reshape(1)
        found = {}
        for name, own in self.topologies.items():
            one: Any = after.get(name, own)
            marks = jnp.concatenate([one.marks[:2], number])
            found[name] = replace(own, columns=one.columns, pointers=one.pointers, marks=marks)
        return found


def active_step(plan: Plan, gradients: Tree, params: Tree, masks: Mapping[str, Any]) -> tuple[ActiveStep, Tree]:
    """The layers of active weights in a step, and the gradients as the optimizer sees them.

    Args:
        plan: of the training.
        gradients: as ``update`` was given them.
        params: the same.
        masks: those of the state.

    Raises:
        ValueError: if a weight, the state and the gradient of a layer do not fit together.
    """
    weights = active_weights(params)
    topologies = {name: mask for name, mask in masks.items() if isinstance(mask, Topology)}
    check_held_alike(weights, topologies)
    flat = with_values(gradients)
    given = named_leaves(flat)
    own = {name: given[name] for name in weights if name in given}
    shapes = {layer.name: layer.shape for layer in plan.layers}
    dense = {
        name: topologies[name].values(gradient) for name, gradient in own.items() if shape_of(gradient) == shapes[name]
    }
    return ActiveStep(plan, weights, topologies, own), with_leaves(flat, dense)


def with_moved(made: Array, moved: Mapping[str, Moving], updates: Mapping[str, Array]) -> dict[str, Array]:
    """The updates of layers of active weights; where the topology update was made, their new values in its place."""
    return {name: jnp.where(made, one.values, updates[name]) for name, one in moved.items()}


def moved_state(
    made: Array | None, moved: Mapping[str, Moving], inner_state: Any, positions: Mapping[str, Sequence[int]]
) -> Any:
    """The optimizer's state after a step.

    Args:
        made: whether the topology update was made in place of the gradient step; None if that comes first.
        moved: the layers of active weights after the topology update.
        inner_state: the state after the gradient step, if that was made.
        positions: what of this belongs to each weight, by layer name.
    """
    leaves: dict[int, Array] = {}
    for name, one in moved.items():
        held = one.held
        if made is not None:
            kept = leaves_at(inner_state, positions[name])
            held = [jnp.where(made, *both) for both in zip(held, kept, strict=True)]
        leaves |= zip(positions[name], held, strict=True)
    return with_leaves_at(inner_state, leaves)


def changes(params: Tree, updates: Tree, active: ActiveStep, masks: Mapping[str, Any], made: Array) -> Tree:
    """The updates as ``optax.apply_updates`` takes them.

    Args:
        params: before the step.
        updates: of its structure, with plain arrays for active weights; new values, where the update was made.
        active: the layers of active weights.
        masks: after the step.
        made: whether a topology update was made.
    """
    if not active.weights:
        return updates

    def one(weight: Any, update: Any) -> Any:
        return change_of(weight, update, masks[weight.layout.name], made) if is_active(weight) else update

    return jax.tree.map(one, params, updates, is_leaf=is_active)
