"""`resume`: check a saved state, and bring it to a recipe that was changed on purpose."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from rigl_backends.jax.active import ActiveLayer
from rigl_backends.jax.active_trees import as_active, is_active, with_values
from rigl_backends.jax.active_weight import Topology
from rigl_backends.jax.checks import check_arrays
from rigl_backends.jax.convert import in_storage
from rigl_backends.jax.handle import SparseState, apply_masks, find_state, full_masks
from rigl_backends.jax.layer import SparseLayer
from rigl_backends.jax.state import Held, NewState, fresh_outside, leaves_at, with_leaves_at
from rigl_backends.jax.trees import Tree, named_leaves, with_leaves
from rigl_backends.jax.whole import whole_namespace
from rigl_backends.jax.written import saved_recipe, written
from rigl_core.adapter import INITIAL, Clock, Plan, check_state, errors, make_state, random_key, refit

if TYPE_CHECKING:
    from rigl_backends.jax.transformation import SparseTraining


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

    A state that was saved with another ``storage`` goes on with that of ``tx``, to which `apply_masks` also brings the
    parameters.

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
    training = training_of(tx)
    state, plan = find_state(opt_state), training.plan_of(params)
    check_arrays(plan, with_values(params), state.masks)
    clock = Clock(training.schedule, int(state.step), bool(state.deferred))
    remembered = jax.tree.map(lambda array: array.reshape(-1), state.memory)
    saved = make_state(plan, clock, full_masks(state, params), remembered)
    check_state(plan, {**saved, "recipe": saved_recipe(state.recipe)}, changed)
    own = in_storage(training, plan, opt_state, state, params, extra_args)
    if own is state and not changed:
        return opt_state
    params = apply_masks(params, own)
    if changed:
        own = _brought_to(training, plan, own, params, clock, extra_args)

    def is_state(node: Any) -> bool:
        return isinstance(node, SparseState)

    return jax.tree.map(lambda node: own if is_state(node) else node, opt_state, is_leaf=is_state)


def _brought_to(
    training: SparseTraining, plan: Plan, state: SparseState, params: Tree, clock: Clock, extra_args: Mapping[str, Any]
) -> SparseState:
    """The state with the counts of another plan."""
    values = with_values(params)
    held = training.held_by(plan, values, state.inner_state, values, extra_args)
    layers = _refitted(plan, state, params)
    leaves = _held_after(training, plan, state, values, layers, held)
    return _with_layers(plan, state, layers, clock)._replace(inner_state=with_leaves_at(state.inner_state, leaves))


def _held_after(
    training: SparseTraining,
    plan: Plan,
    state: SparseState,
    values: Tree,
    layers: Mapping[str, SparseLayer | ActiveLayer],
    held: Held,
) -> dict[int, Array]:
    """What the optimizer holds for the weights of layers that were refitted, by leaf of its state."""
    leaves: dict[int, Array] = {}
    new_values = {name: layer.weight for name, layer in layers.items() if isinstance(layer, ActiveLayer)}
    begun = jax.tree.leaves(training.inner.init(with_leaves(values, new_values)))
    for name, layer in layers.items():
        positions = held.positions[name]
        old = leaves_at(state.inner_state, positions)
        if isinstance(layer, ActiveLayer):
            fresh = [jnp.full_like(begun[i], held.numbers.get(i, begun[i])) for i in positions]
            sources = jnp.asarray(layer.sources)
            gathered = [array[jnp.maximum(sources, 0)] for array in old]
            leaves |= zip(positions, fresh_outside(gathered, fresh, sources >= 0), strict=True)
        elif layer.survivors is not None and not plan.recipe.rule.shadow:
            shape = state.masks[name].shape
            weight, survivors = layer.weight.reshape(shape), layer.survivors.reshape(shape)
            new = NewState(training.inner.init, values, held.numbers).of({name: weight}, positions)
            leaves |= zip(positions, fresh_outside(old, new, survivors), strict=True)
    return leaves


def training_of(tx: Any) -> SparseTraining:
    """The training of a transformation that `sparsify` gave, also around `optax.MultiSteps`."""
    owner: Any = getattr(getattr(tx, "init", None), "__self__", None)
    if isinstance(owner, optax.MultiSteps):
        return training_of(owner.inner_opt)
    if not hasattr(owner, "held_by"):
        raise errors.wrong_type("tx", tx, "optax.GradientTransformation that sparsify gave")
    training: SparseTraining = owner
    return training


def _refitted(plan: Plan, state: SparseState, params: Tree) -> dict[str, SparseLayer | ActiveLayer]:
    """The sparse layers with the planned numbers of connections, by name; `SparseLayer.survivors` where some moved."""
    arrays, rule, seed = named_leaves(params, is_leaf=is_active), plan.recipe.rule, plan.recipe.seed
    layers: dict[int, Any] = {}
    for i in plan.sparse_layers:
        layer = plan.layers[i]
        mask, array = state.masks[layer.name], arrays[layer.name]
        if isinstance(mask, Topology):
            weight = np.asarray(as_active(array, mask).values)
            layers[i] = ActiveLayer(layer, plan.recipe, mask.index(), weight)
            continue
        memory = {kind: own[layer.name] for kind, own in state.memory.items()}
        key = random_key(seed, layer.name, INITIAL)
        zeroed, whole = jnp.where(mask, array, 0), jnp.broadcast_to(mask, array.shape)
        layers[i] = SparseLayer.of(layer, rule, zeroed, whole, memory, key, whole_namespace)
    refit(plan, layers, int(state.step))
    return {plan.layers[i].name: own for i, own in layers.items()}


def _with_layers(
    plan: Plan, state: SparseState, layers: Mapping[str, SparseLayer | ActiveLayer], clock: Clock
) -> SparseState:
    masks: dict[str, Any] = {layer.name: jnp.ones((), bool) for layer in plan.layers}
    reads = int(state.step) + 1 if clock.due and plan.recipe.rule.reads_gradient else 0
    shapes = {layer.name: layer.shape for layer in plan.layers}
    for name, layer in layers.items():
        if isinstance(layer, ActiveLayer):
            masks[name] = Topology.of(layer.layer, layer.index, state.masks[name].link).at_step(reads)
        else:
            masks[name] = layer.mask.reshape(shapes[name])
    masked = [name for name, layer in layers.items() if isinstance(layer, SparseLayer)]
    memory = {kind: {name: layers[name].memory[kind].reshape(shapes[name]) for name in masked} for kind in state.memory}
    return state._replace(masks=masks, memory=memory, recipe=written(plan.recipe))
