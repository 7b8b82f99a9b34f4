"""`resume`: check a saved state, and bring it to a recipe that was changed on purpose."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rigl_backends.jax.handle import SparseState, check_arrays, find_state, full_masks
from rigl_backends.jax.layer import SparseLayer
from rigl_backends.jax.state import NewState, fresh_outside, leaves_at, with_leaves_at
from rigl_backends.jax.trees import Tree, named_leaves
from rigl_backends.jax.written import saved_recipe, written
from rigl_core.adapter import INITIAL, Clock, Plan, check_state, errors, make_state, random_key, refit

if TYPE_CHECKING:
    from rigl_backends.jax.sparsify import SparseTraining


def resume(
    tx: optax.GradientTransformation, opt_state: Any, params: Tree, *, changed: Collection[str] = (), **extra_args: Any
) -> Any:
    """A saved state, checked, and brought to a recipe that was changed on purpose.

    Under the recipe that it was saved under, a state simply goes on. Under another one ``update`` refuses it; here you
    say what you changed::

        tx = rigl_backends.jax.sparsify(optax.adam(1e-3), recipe)  # the same, but with a longer schedule
        opt_state = rigl_backends.jax.resume(tx, opt_state, params, changed=["schedule"])
        params = rigl_backends.jax.apply_masks(params, opt_state)

    If the plan has other counts now, the connections with the largest magnitudes stay, and missing ones join in the
    order of the initial random scores. A library that restores a state from a file asks for one of the same structure:
    give it that of a transformation with the recipe that the state was saved under.

    Args:
        tx: what `sparsify` gave, with the recipe to go on with.
        opt_state: the saved state, or a tree that holds it; outside ``jit``.
        params: the parameters that were saved with it; they stay as they are.
        changed: the fields of the recipe that differ on purpose, such as ``["schedule"]``.
        extra_args: what ``update`` gets besides, if the inner transformation needs any.

    Returns:
        The state, in the tree that holds it.

    Raises:
        TypeError, ValueError: if it is the state of another recipe or of other layers; the message lists all
            differences.
    """
    training = _training_of(tx)
    state, plan = find_state(opt_state), training.plan_of(params)
    check_arrays(plan, params, state.masks)
    clock = Clock(training.schedule, int(state.step), bool(state.deferred))
    saved = make_state(plan, clock, full_masks(state, params), state.memory)
    check_state(plan, {**saved, "recipe": saved_recipe(state.recipe)}, changed)
    if not changed:
        return opt_state
    layers = _refitted(plan, state, params)
    held = training.held_by(plan, params, state.inner_state, params, extra_args)
    leaves: dict[int, Array] = {}
    for name, layer in layers.items():
        if layer.survivors is not None and not plan.recipe.rule.shadow:
            positions, shape = held.positions[name], state.masks[name].shape
            weight, survivors = layer.weight.reshape(shape), layer.survivors.reshape(shape)
            new = NewState(training.inner.init, params, held.numbers).of({name: weight}, positions)
            old = leaves_at(state.inner_state, positions)
            leaves |= zip(positions, fresh_outside(old, new, survivors), strict=True)
    own = _with_layers(plan, state, layers)._replace(inner_state=with_leaves_at(state.inner_state, leaves))

    def is_state(node: Any) -> bool:
        return isinstance(node, SparseState)

    return jax.tree.map(lambda node: own if is_state(node) else node, opt_state, is_leaf=is_state)


def _training_of(tx: Any) -> SparseTraining:
    """The training of a transformation that `sparsify` gave, also around `optax.MultiSteps`."""
    owner: Any = getattr(getattr(tx, "init", None), "__self__", None)
    if isinstance(owner, optax.MultiSteps):
        return _training_of(owner.inner_opt)
    if not hasattr(owner, "held_by"):
        raise errors.wrong_type("tx", tx, "optax.GradientTransformation that sparsify gave")
    training: SparseTraining = owner
    return training


def _refitted(plan: Plan, state: SparseState, params: Tree) -> dict[str, SparseLayer]:
    """The sparse layers with the planned numbers of connections, by name; `SparseLayer.survivors` where some moved."""
    arrays, masks, seed = named_leaves(params), full_masks(state, params), plan.recipe.seed
    layers = {}
    for i in plan.sparse_layers:
        layer = plan.layers[i]
        memory = {kind: own[layer.name] for kind, own in state.memory.items()}
        weight = jnp.where(masks[layer.name], arrays[layer.name], 0).reshape(-1)
        key = random_key(seed, layer.name, INITIAL)
        layers[i] = SparseLayer(layer, plan.recipe.rule, weight, masks[layer.name].reshape(-1), memory, key)
    refit(plan, layers, int(state.step))
    return {own.layer.name: own for own in layers.values()}


def _with_layers(plan: Plan, state: SparseState, layers: dict[str, SparseLayer]) -> SparseState:
    masks = {layer.name: jnp.ones((), bool) for layer in plan.layers}
    masks |= {name: layer.mask.reshape(layer.layer.shape) for name, layer in layers.items()}
    memory = {kind: {name: layer.memory[kind] for name, layer in layers.items()} for kind in state.memory}
    return state._replace(masks=masks, memory=memory, recipe=written(plan.recipe))
