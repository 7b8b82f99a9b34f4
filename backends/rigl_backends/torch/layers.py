"""Which parameters of a PyTorch model are layers, and what their axes mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter

from rigl_core.model.layers import Layer
from rigl_core.model.patterns import Choice

_OUT_IN: dict[str, Any] = {"in_axes": (1,), "out_axes": (0,)}
_IN_OUT: dict[str, Any] = {"in_axes": (0,), "out_axes": (1,)}


class _Use(NamedTuple):
    """How one module uses a parameter."""

    name: str
    axes: dict[str, Any]
    sparse: bool
    """Whether this use asks for a sparse parameter."""
    keeps_dense: bool = False
    """Whether this use keeps the parameter dense, whatever the others ask for."""
    sparse_gradient: bool = False
    """Whether this use gives it gradients as sparse tensors, which say nothing of most connections."""


def choose_layers(
    model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[tuple[Layer, nn.Parameter]]:
    """The layers of a model, in its own order, each parameter once.

    By default the weights of Linear, Conv1d to Conv3d, their transposed versions, recurrent layers and
    cells, and attention projections. Biases, norms, embeddings (and what is tied to them), depthwise
    kernels and parametrized weights (`torch.nn.utils.parametrize`) stay dense.

    Args:
        model: the model.
        include: name patterns of parameters to choose besides.
        exclude: name patterns of parameters not to choose; goes before ``include``. A tied parameter has
            several names, and any of them counts.

    Raises:
        TypeError, ValueError: for a pattern that matches no parameter, a lazy parameter without a shape,
            or an embedding with sparse gradient tensors.
    """
    uses = uses_by_parameter(model)
    is_chosen = Choice(include, exclude, [use.name for _, parameter_uses in uses for use in parameter_uses])
    chosen = []
    for parameter, parameter_uses in uses:
        if is_chosen(*(use.name for use in parameter_uses), default=_is_layer(parameter_uses)):
            name, axes = parameter_uses[0].name, next((use.axes for use in parameter_uses if use.axes), {})
            if isinstance(parameter, UninitializedParameter):
                raise ValueError(f"model has the lazy parameter {name!r}: run one forward pass before sparsify.")
            if any(use.sparse_gradient for use in parameter_uses):
                raise ValueError(
                    f"layer {name!r} is an embedding with sparse gradient tensors: make it with sparse=False, or "
                    "exclude it."
                )
            chosen.append((Layer(name, tuple(parameter.shape), **axes), parameter))
    return chosen


def _is_layer(uses: Sequence[_Use]) -> bool:
    return any(use.sparse for use in uses) and not any(use.keeps_dense for use in uses)


def uses_by_parameter(model: nn.Module) -> list[tuple[nn.Parameter, list[_Use]]]:
    """Every parameter of a model, once, in its order, with all its uses."""
    uses: dict[int, tuple[nn.Parameter, list[_Use]]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own_name, parameter in module.named_parameters(prefix, recurse=False, remove_duplicate=False):
            use = _use(module, own_name, own_name.removeprefix(prefix).removeprefix("."))
            uses.setdefault(id(parameter), (parameter, []))[1].append(use)
    return list(uses.values())


def _use(module: nn.Module, name: str, own_name: str) -> _Use:
    if own_name == "weight":
        if isinstance(module, nn.Linear):
            return _Use(name, _OUT_IN, sparse=True)
        if isinstance(module, _ConvNd):
            return _convolution(module, name)
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            return _Use(name, _IN_OUT, sparse=False, keeps_dense=True, sparse_gradient=module.sparse)
    recurrent = isinstance(module, nn.RNNBase | nn.RNNCellBase) and own_name.startswith("weight_")
    attention = isinstance(module, nn.MultiheadAttention) and own_name.endswith("proj_weight")
    if recurrent or attention:
        return _Use(name, _OUT_IN, sparse=True)
    return _Use(name, {}, sparse=False)


def _convolution(module: _ConvNd, name: str) -> _Use:
    depthwise = module.groups > 1 and module.groups == module.in_channels
    transposed = isinstance(module, _ConvTransposeNd)
    axes = {
        **(_IN_OUT if transposed else _OUT_IN),
        "groups": module.groups,
        "grouped_axes": "out" if transposed else "in",
        "depthwise": depthwise,
    }
    return _Use(name, axes, sparse=not depthwise, keeps_dense=depthwise)
