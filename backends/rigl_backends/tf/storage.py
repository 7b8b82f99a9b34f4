"""Which layers of a model hold their active weights alone, and how they become so."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.keras_common.state import single_optimizers
from rigl_backends.keras_common.variables import variable_name
from rigl_backends.tf.active import ActiveLayer
from rigl_backends.tf.active_kernel import ActiveKernel, check_dense, check_made
from rigl_backends.tf.drawn import drawn
from rigl_backends.tf.layer import SparseLayer
from rigl_backends.tf.moving import exchange
from rigl_backends.tf.state import PerWeight, per_weight_state
from rigl_backends.tf.support import HOLDERS, owners_of, why_not, why_not_worth
from rigl_core.adapter import Index, Plan, Storage, active_layers, first_indices


def hold_active(
    plan: Plan,
    model: keras.layers.Layer,
    variables: Sequence[Any],
    positions: Sequence[int],
    optimizer: keras.optimizers.Optimizer,
    storage: Storage,
    scores: Mapping[str, Any] | None,
) -> None:
    """Hold layers as active weights, in place; a part of `sparsify`.

    Args:
        plan: the plan.
        model: the model.
        variables: what the optimizer trains.
        positions: of the plan's layers among the variables.
        optimizer: whose state follows, if it is built.
        storage: what the user asks for; with masks, nothing changes.
        scores: the user's scores by layer name, if the recipe reads some.

    Raises:
        TypeError, ValueError: naming the parameter or layer; nothing has been changed then.
    """
    if storage == "masks":
        check_made(model)
        return
    check_dense(model, but_described=True)
    of_layers = [variables[position] for position in positions]
    active = chosen(plan, model, of_layers, optimizer, storage)
    if not active:
        return
    state = state_held(optimizer, variables, [positions[i] for i in active])
    weights = {i: of_layers[i].numpy().reshape(-1) for i in active if not _is_described(of_layers[i])}
    indices = first_indices(plan, active, weights, scores)
    owners = owners_of(model)
    holders = {i: owners[id(of_layers[i])][0] for i in indices}
    values = {i: _initial(holders[i], index) for i, index in indices.items()}
    for i, index in indices.items():
        become_active(holders[i], index, values[i], state.get(positions[i], ()))
    renew(model, optimizer)


def become_active(
    layer: keras.layers.Layer, index: Index, values: npt.NDArray[np.float32], state: Sequence[PerWeight]
) -> None:
    """Let a layer hold its active weights, which are given, and the optimizer the state of these."""
    for own in state:
        exchange(own.variable, index.values(own.variable.numpy()))
    if isinstance(layer, ActiveKernel):
        layer.become(layer, index, values)
    else:
        HOLDERS[type(layer)].become(layer, index, values)


def chosen(
    plan: Plan,
    model: keras.layers.Layer,
    variables: Sequence[Any],
    optimizer: keras.optimizers.Optimizer,
    storage: Storage,
) -> tuple[int, ...]:
    """The positions in the plan of the layers to hold as active weights, whose variables are given."""
    reasons, owners = {}, owners_of(model)
    for layer, count, variable in zip(plan.layers, plan.active, variables, strict=True):
        must_pay = storage == "active" and not _is_described(variable)
        reason = why_not(plan, variable, owners) or (why_not_worth(layer, count) if must_pay else None)
        if reason is not None:
            reasons[layer.name] = reason
    active = active_layers(plan, storage, reasons, convolutions=True)
    told = zip(variables, (reasons.get(layer.name) for layer in plan.layers), strict=True)
    others = {id(variable): f"it {reason}" for variable, reason in told if reason is not None}
    _check_described(model, {id(variables[i]) for i in active}, others, optimizer)
    return active


def _initial(layer: keras.layers.Layer, index: Index) -> npt.NDArray[np.float32]:
    """The active weights of a layer; those of a described one are drawn."""
    if isinstance(layer, ActiveKernel):
        return drawn(layer.name, layer.kernel_initializer, layer.link.shape, index.size)
    own: npt.NDArray[np.float32] = index.values(layer.kernel.numpy())
    return own


def _is_described(variable: Any) -> bool:
    """Whether a variable is the kernel of a layer without connections."""
    return hasattr(variable, "link") and not variable.link.places


def _check_described(
    model: keras.layers.Layer, held: Collection[int], reasons: Mapping[int, str], optimizer: keras.optimizers.Optimizer
) -> None:
    """Refuse described layers that would get no connections, and an optimizer that was built before them.

    Args:
        model: the model.
        held: the ids of the variables that are to be active weights.
        reasons: why others cannot be, by their ids.
        optimizer: the optimizer.
    """
    for layer in model._flatten_layers():
        if not isinstance(layer, ActiveKernel) or not layer.is_described:
            continue
        if id(layer._kernel) not in held:
            reason = reasons.get(id(layer._kernel), "by plan and storage it is no layer of active weights")
            raise ValueError(f"layer {layer.name!r} was described, but {reason}: use a dense layer for it.")
        if optimizer.built:
            raise ValueError(f"optimizer was built before layer {layer.name!r} had its connections: give a new one.")


def state_held(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], positions: Sequence[int]
) -> dict[int, list[PerWeight]]:
    """What the optimizer holds for each weight, by the positions of the variables; none if it is not built.

    Raises:
        ValueError: if it holds other arrays for them.
    """
    if not optimizer.built:
        return {}
    state = per_weight_state(optimizer, variables, positions)
    held = Counter(id(one.variable) for own in state.values() for one in own)
    for i in positions:
        prefix = f"{variable_name(variables[i])}_".replace("/", "_")
        for other in optimizer.variables:
            if other.name.startswith(prefix) and id(other) not in held and other.shape.rank:
                raise ValueError(
                    f"optimizer holds {other.name!r} for a layer of active weights, which is not a number for each "
                    "weight: give sparsify a new optimizer."
                )
    return state


def renew(model: keras.layers.Layer, optimizer: keras.optimizers.Optimizer) -> None:
    """Let Keras trace the model again, and find the variables whose arrays are others now."""
    for name in ("train_function", "test_function", "predict_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
    for one in single_optimizers(optimizer):
        if one.built:
            keys = {one._var_key(variable): i for i, variable in enumerate(one._trainable_variables)}
            one._trainable_variables_indices = keys


def check_counts(plan: Plan, variables: Sequence[Any]) -> None:
    """Refuse layers of active weights that hold other numbers of them than planned, such as those of another recipe.

    Args:
        plan: the plan.
        variables: of its layers.
    """
    alone = [(i,) for i in range(len(plan.layers)) if not any(i in pool for pool in plan.pools)]
    for pool in [*plan.pools, *alone]:
        held = [variables[i].shape[0] for i in pool if hasattr(variables[i], "link")]
        planned = sum(plan.initial_active[i] for i in pool)
        if held and sum(held) != planned:
            raise ValueError(
                f"layer {plan.layers[pool[0]].name!r} holds {sum(held)} active weights already (with those that it "
                f"chooses together with), and the plan has {planned}: sparsify a model of dense layers, or use the "
                "recipe that made it."
            )


def layers_in(
    plan: Plan,
    variables: Sequence[Any],
    state: Sequence[Sequence[PerWeight]],
    add: Callable[[str, str, tf.Tensor], keras.Variable],
) -> dict[int, SparseLayer]:
    """The plan's sparse layers by their positions: with masks, or of active weights.

    Args:
        plan: the plan.
        variables: of its layers.
        state: what the optimizer holds for each weight of each of them.
        add: makes a variable of the training, given a layer's name with a bar, its kind, and its value.
    """
    layers: dict[int, SparseLayer] = {}
    for i in plan.sparse_layers:
        kind = ActiveLayer if hasattr(variables[i], "link") else SparseLayer
        own_add = functools.partial(add, f"{plan.layers[i].name}_")
        layers[i] = kind(plan.layers[i], plan.recipe, variables[i], state[i], own_add)
    return layers
