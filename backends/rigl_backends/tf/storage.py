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

from rigl_backends.tf.active import ActiveLayer
from rigl_backends.tf.active_dense import SparseDense, check_dense, check_made
from rigl_backends.tf.drawn import drawn
from rigl_backends.tf.layer import SparseLayer
from rigl_backends.tf.layers import variable_name
from rigl_backends.tf.moving import exchange
from rigl_backends.tf.namespace import has_gpu
from rigl_backends.tf.state import PerWeight, per_weight_state, single_optimizers
from rigl_core.adapter import Index, Layer, Plan, Storage, active_layers, first_indices

PAYS_FROM = 1 << 20
"""The connections of the smallest layer that is faster truly sparse: the calls take half a millisecond and more."""
PAYS_BELOW = 0.2
"""The highest density at which such a layer is faster than a dense one."""


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
    owners, of_layers = _owners(model), [variables[position] for position in positions]
    active = _chosen(plan, model, of_layers, owners, optimizer, storage)
    if not active:
        return
    state = _state(optimizer, variables, [positions[i] for i in active])
    weights = {i: of_layers[i].numpy().reshape(-1) for i in active if not _is_described(of_layers[i])}
    indices = first_indices(plan, active, weights, scores)
    holders = {i: owners[id(of_layers[i])][0] for i in indices}
    values = {i: _initial(holders[i], index) for i, index in indices.items()}
    for i, index in indices.items():
        for own in state.get(positions[i], ()):
            exchange(own, index.values(own.numpy()))
        SparseDense.become(holders[i], index, values[i])
    _renew(model, optimizer)


def _chosen(
    plan: Plan,
    model: keras.layers.Layer,
    variables: Sequence[Any],
    owners: Mapping[int, Sequence[keras.layers.Layer]],
    optimizer: keras.optimizers.Optimizer,
    storage: Storage,
) -> tuple[int, ...]:
    """The positions in the plan of the layers to hold as active weights, whose variables are given."""
    reasons = {}
    for layer, count, variable in zip(plan.layers, plan.active, variables, strict=True):
        must_pay = storage == "active" and not _is_described(variable)
        reason = _why_not(plan, variable, owners) or (_why_not_worth(layer, count) if must_pay else None)
        if reason is not None:
            reasons[layer.name] = reason
    active = active_layers(plan, storage, reasons)
    told = zip(variables, (reasons.get(layer.name) for layer in plan.layers), strict=True)
    others = {id(variable): f"it {reason}" for variable, reason in told if reason is not None}
    _check_described(model, {id(variables[i]) for i in active}, others, optimizer)
    return active


def _initial(layer: keras.layers.Dense, index: Index) -> npt.NDArray[np.float32]:
    """The active weights of a layer; those of a described one are drawn."""
    if isinstance(layer, SparseDense):
        return drawn(layer.name, layer.kernel_initializer, layer.link.shape, index.size)
    own: npt.NDArray[np.float32] = index.values(layer.kernel.numpy())
    return own


def _owners(model: keras.layers.Layer) -> dict[int, list[keras.layers.Layer]]:
    """The layers that hold each variable, by its id."""
    owners: dict[int, list[keras.layers.Layer]] = {}
    for layer in model._flatten_layers():
        for variable in layer._trainable_variables:
            owners.setdefault(id(variable), []).append(layer)
    return owners


def _is_described(variable: Any) -> bool:
    """Whether a variable is the kernel of a `SparseDense` layer without connections."""
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
        if not isinstance(layer, SparseDense) or not layer.is_described:
            continue
        if id(layer._kernel) not in held:
            reason = reasons.get(id(layer._kernel), "by plan and storage it is no layer of active weights")
            raise ValueError(f"layer {layer.name!r} was described, but {reason}: use a Dense layer for it.")
        if optimizer.built:
            raise ValueError(f"optimizer was built before layer {layer.name!r} had its connections: give a new one.")


def _why_not(plan: Plan, variable: Any, owners: Mapping[int, Sequence[keras.layers.Layer]]) -> str | None:
    """Why a variable cannot be held as active weights; None if it can."""
    own = owners.get(id(variable), [])
    layer: Any = own[0] if own else None
    if type(layer) not in (keras.layers.Dense, SparseDense) or variable is not layer._kernel:
        return f"belongs to a {type(layer).__name__}, and only a plain keras.layers.Dense can"
    if len(own) > 1:
        return f"is also a variable of {own[1].name!r}"
    if plan.recipe.ramp is not None:
        return "changes its number of weights by the recipe's ramp, and variables of TensorFlow keep their shape"
    if has_gpu():
        return "may be on a GPU, and the kernels run on CPUs"
    for dtype in (layer.compute_dtype, layer.variable_dtype):
        if dtype != "float32":
            return f"is {dtype}, and the kernels multiply float32"
    for name in ("kernel_regularizer", "kernel_constraint", "quantization_mode", "lora_rank"):
        if getattr(layer, name, None) is not None:
            return f"has a {name}, which reads a dense kernel"
    return None


def _why_not_worth(layer: Layer, active: int) -> str | None:
    """Why a layer would not be faster truly sparse in TensorFlow, where a call costs more; None if it would."""
    if layer.size < PAYS_FROM:
        return f"has {layer.size:,} connections, and in TensorFlow products pay from {PAYS_FROM:,} on"
    if active > PAYS_BELOW * layer.size:
        return f"has a density of {active / layer.size:.2f}, and in TensorFlow products pay up to {PAYS_BELOW}"
    return None


def _state(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], positions: Sequence[int]
) -> dict[int, list[keras.Variable]]:
    """The optimizer's numbers for each weight, by the positions of the variables; none if it is not built.

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
    return {i: [one.variable for one in own] for i, own in state.items()}


def _renew(model: keras.layers.Layer, optimizer: keras.optimizers.Optimizer) -> None:
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
                f"chooses together with), and the plan has {planned}: sparsify a model of Dense layers, or use the "
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
