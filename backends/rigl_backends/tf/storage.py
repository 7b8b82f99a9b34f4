"""Which layers of a model hold their active weights alone, and how they become so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from rigl_backends.tf.active_dense import SparseDense, check_dense
from rigl_backends.tf.layers import variable_name
from rigl_backends.tf.moving import exchange
from rigl_backends.tf.namespace import has_gpu
from rigl_backends.tf.state import per_weight_state, single_optimizers
from rigl_core.adapter import Layer, Plan, Storage, active_layers, first_indices

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
        storage: what the user asks for.
        scores: the user's scores by layer name, if the recipe reads some.

    Raises:
        TypeError, ValueError: naming the parameter or layer; nothing has been changed then.
    """
    check_dense(model)
    owners = _owners(model)
    of_layers = [variables[position] for position in positions]
    reasons = {}
    for layer, count, variable in zip(plan.layers, plan.active, of_layers, strict=True):
        reason = _why_not(plan, variable, owners) or (_why_not_worth(layer, count) if storage == "active" else None)
        if reason is not None:
            reasons[layer.name] = reason
    active = active_layers(plan, storage, reasons)
    if not active:
        return
    state = _state(optimizer, variables, [positions[i] for i in active])
    weights = {i: of_layers[i].numpy().reshape(-1) for i in active}
    indices = first_indices(plan, active, weights, scores)
    for i, index in indices.items():
        for own in state.get(positions[i], ()):
            exchange(own, index.values(own.numpy()))
        SparseDense.become(owners[id(of_layers[i])][0], index)
    _renew(model, optimizer)


def _owners(model: keras.layers.Layer) -> dict[int, list[keras.layers.Layer]]:
    """The layers that hold each variable, by its id."""
    owners: dict[int, list[keras.layers.Layer]] = {}
    for layer in model._flatten_layers():
        for variable in layer._trainable_variables:
            owners.setdefault(id(variable), []).append(layer)
    return owners


def _why_not(plan: Plan, variable: Any, owners: Mapping[int, Sequence[keras.layers.Layer]]) -> str | None:
    """Why a variable cannot be held as active weights; None if it can."""
    own = owners.get(id(variable), [])
    layer: Any = own[0] if own else None
    if type(layer) is not keras.layers.Dense or variable is not layer._kernel:
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
