"""The modules of PyTorch that hold the suite's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rigl_backends.torch import SparseConv2d, SparseLinear
from rigl_core import Layer
from rigl_core.testing.harness import Array
from rigl_core.testing.layout import laid_out_like


def model_of(params: Mapping[str, Array], layers: Sequence[Layer], dtype: str) -> nn.Module:
    """A module with these parameters: layers become the weights of RMSNorm, Linear and Conv2d modules."""
    model = nn.Module()
    own_layers = {layer.name: layer for layer in layers}
    for name, value in params.items():
        parent, _, own_name = name.rpartition(".")
        if name in own_layers:
            model.add_module(parent, _module_of(own_layers[name]))
        model.get_submodule(parent).register_parameter(own_name, nn.Parameter(tensor_of(value, dtype)))
    return model


def _module_of(layer: Layer) -> nn.Module:
    """A module whose only parameter is a weight with the axes of a layer."""
    axes = len(layer.shape)
    if axes < 3:
        return nn.RMSNorm(1) if axes == 1 else nn.Linear(1, 1, bias=False)
    module = nn.Conv2d(1, 1, 1, bias=False)
    outputs, inputs, *kernel = layer.shape
    module.out_channels, module.in_channels, module.groups = outputs, inputs * layer.groups, layer.groups
    module.kernel_size = tuple(kernel)  # type: ignore[assignment]
    return module


def each_column(module: SparseLinear | SparseConv2d) -> Tensor:
    """The outputs (columns, outputs) for inputs of which each shows one column of the weight, and nothing else."""
    columns = module.index.cols
    inputs = torch.eye(columns).reshape(columns, *module.shape[1:])
    if isinstance(module, SparseConv2d):
        inputs = inputs.repeat(1, module.groups, 1, 1)
    return module.product(inputs).reshape(columns, module.shape[0])


def tensor_of(array: Array, dtype: str) -> Tensor:
    """A tensor with the array's numbers, at the places in memory that they have there."""
    return torch.from_numpy(laid_out_like(array, array.dtype)).to(getattr(torch, dtype))
