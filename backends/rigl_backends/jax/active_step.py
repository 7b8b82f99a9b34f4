"""The layers of active weights in a step. Everything else of the step sees their values as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rigl_backends.jax.active import Moved, Mover, Moving
from rigl_backends.jax.active_trees import active_weights, check_held_alike, is_active, with_values
from rigl_backends.jax.active_weight import ActiveWeight, Topology
from rigl_backends.jax.change import change_of
from rigl_backends.jax.layer import applied
from rigl_backends.jax.state import fresh_outside
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
        self, moving: Array, update: Array, updates: Mapping[str, Array], still: Collection[str]
    ) -> tuple[Array, dict[str, Moved]]:
        """A topology update, if it is due and all gradients are finite.

        Args:
            moving: whether it is due, and may be made.
            update: its number.
            updates: by which a gradient step changes the weights before, by name; none if there is no such step.
            still: the layers that the optimizer does not train.

        Returns:
            Whether it was made, and the layers after it, which have any values if it was not.
        """
        if not self.weights:
            return moving, {}
        positions = {layer.name: i for i, layer in enumerate(self.plan.layers)}
        layers, before = [], []
        for name, weight in self.weights.items():
            own, gradient = self.topologies[name], None if name in still else self.gradients[name]
            values = applied(weight.values, updates[name]) if name in updates else weight.values
            before.append(Moving(values, own.columns, own.pointers, gradient))
            layers.append((positions[name], weight.layout, weight.link))
        made, after = Mover(self.plan, layers).move(moving, update, before)
        return made, dict(zip(self.weights, after, strict=True))

    def apply(
        self,
        moved: Mapping[str, Moved],
        held: Mapping[str, list[Array]],
        fresh: Callable[[str, Array], list[Array]],
    ) -> tuple[dict[str, Array], dict[str, Topology], dict[str, list[Array]]]:
        """The values, topologies and optimizer state of these layers after an update that was made, by name.

        Args:
            moved: the layers after it.
            held: what the optimizer held for each weight.
            fresh: gives what it holds for new weights, of a name and values.
        """
        values, topologies, state = {}, {}, {}
        for name, after in moved.items():
            gathered = [array[jnp.maximum(after.sources, 0)] for array in held[name]]
            values[name], own = after.values, self.topologies[name]
            state[name] = fresh_outside(gathered, fresh(name, after.values), after.sources >= 0)
            marks = jnp.concatenate([after.digest, own.marks[2:]])
            topologies[name] = replace(own, columns=after.columns, pointers=after.pointers, marks=marks)
        return values, topologies, state

    def at_next(self, topologies: Mapping[str, Topology], clock: Clock) -> dict[str, Topology]:
        """The topologies after a step, which tell whether the next one reads the dense gradient.

        Args:
            topologies: of these layers.
            clock: after the step.
        """
        reads = jnp.asarray(clock.due & self.plan.recipe.rule.reads_gradient)
        number = jnp.where(reads, clock.step + 1, 0).astype(jnp.float32).reshape(1)
        return {name: replace(own, marks=jnp.concatenate([own.marks[:2], number])) for name, own in topologies.items()}


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
