"""Which layers of Keras can hold their active weights alone, and which are faster so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from rigl_backends.tf.active_conv import SparseConv2D
from rigl_backends.tf.active_dense import SparseDense
from rigl_backends.tf.active_kernel import ActiveKernel
from rigl_backends.tf.namespace import has_gpu
from rigl_backends.tf.strategies import replicas_of
from rigl_core.adapter import Layer, Plan

HOLDERS: Mapping[type[keras.layers.Layer], type[ActiveKernel]] = {
    keras.layers.Dense: SparseDense,
    keras.layers.Conv2D: SparseConv2D,
}
"""What each kind of layer becomes."""
PAYS_FROM = 1 << 20
"""The connections of the smallest layer that is faster truly sparse: the calls take half a millisecond and more."""
PAYS_BELOW = 0.2
"""The highest density at which such a layer is faster than a dense one."""
CONVOLUTION_PAYS_FROM, CONVOLUTION_PAYS_BELOW = 1 << 19, 0.1
"""The same for a group of a convolution, whose images are transposed before and after the products."""


def owners_of(model: keras.layers.Layer) -> dict[int, list[keras.layers.Layer]]:
    """The layers that hold each variable, by its id."""
    owners: dict[int, list[keras.layers.Layer]] = {}
    for layer in model._flatten_layers():
        for variable in layer._trainable_variables:
            owners.setdefault(id(variable), []).append(layer)
    return owners


def why_not(plan: Plan, variable: Any, owners: Mapping[int, Sequence[keras.layers.Layer]]) -> str | None:
    """Why a variable cannot be held as active weights; None if it can."""
    own = owners.get(id(variable), [])
    layer: Any = own[0] if own else None
    if type(layer) not in (*HOLDERS, *HOLDERS.values()) or variable is not layer._kernel:
        return f"belongs to a {type(layer).__name__}, and only a plain keras.layers.Dense or Conv2D can"
    if len(own) > 1:
        return f"is also a variable of {own[1].name!r}"
    if plan.recipe.ramp is not None:
        return "changes its number of weights by the recipe's ramp, and variables of TensorFlow keep their shape"
    if replicas_of(variable) > 1:
        return "is on several replicas, and NumPy would hold the weights of each"
    if has_gpu():
        return "may be on a GPU, and the kernels run on CPUs"
    for dtype in (layer.compute_dtype, layer.variable_dtype):
        if dtype != "float32":
            return f"is {dtype}, and the kernels multiply float32"
    for name in ("kernel_regularizer", "kernel_constraint", "quantization_mode", "lora_rank"):
        if getattr(layer, name, None) is not None:
            return f"has a {name}, which reads a dense kernel"
    return None


def why_not_worth(layer: Layer, active: int) -> str | None:
    """Why a layer would not be faster truly sparse in TensorFlow, where a call costs more; None if it would."""
    is_matrix, size = len(layer.shape) == 2, layer.size // layer.groups
    least = PAYS_FROM if is_matrix else CONVOLUTION_PAYS_FROM
    most = PAYS_BELOW if is_matrix else CONVOLUTION_PAYS_BELOW
    if size < least:
        of_group = " a group" if layer.groups > 1 else ""
        return f"has {size:,} connections{of_group}, and in TensorFlow products pay from {least:,} on"
    if active > most * layer.size:
        return f"has a density of {active / layer.size:.2f}, and in TensorFlow products pay up to {most}"
    return None
