"""Which parameters of a PyTorch model are layers, and what their axes mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter

from rigl_backends.torch.computed import Computed, computed_weights, warn_of
from rigl_backends.torch.twin import is_sharded
from rigl_core.adapter import Axes, Choice, Fused, Layer, Stacked, check_layers, errors, first_match, with_axes

_OUT_IN: dict[str, Any] = {"in_axes": (1,), "out_axes": (0,)}
_RECURRENT = re.compile(r"weight_(ih|hh|hr)(_l\d+(_reverse)?)?")
"""Others, such as ``weight_hh_l0_g``, are what a weight is computed from."""
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
    model: nn.Module,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> list[Layer]:
    """The layers of a model, in its own order, each parameter once.

    By default the weights of Linear, Conv1d to Conv3d, their transposed versions, recurrent layers and
    cells, and attention projections, and of Conv1D in Hugging Face's transformers. Biases, norms, embeddings (and what
    is tied to them) and depthwise kernels stay dense, and so do weights that are computed from other parameters
    (`torch.nn.utils.parametrize`, ``prune``, ``weight_norm``, ``spectral_norm``).

    Args:
        model: the model.
        include: name patterns of parameters to choose besides.
        exclude: name patterns of parameters not to choose; goes before ``include``. A tied parameter has
            several names, and any of them counts.
        axes: in and out axes by name pattern (first match wins), before what the modules tell. A tied parameter goes
            by the name of its layer.
        stacked: axes along which layers are stacked, as for `sparsify`.
        fused: parts that are fused along an axis, as for `sparsify`.

    Raises:
        TypeError, ValueError: naming the parameter, for a pattern that matches nothing, axes that do not fit, or a
            lazy parameter without a shape.
    """
    uses = uses_by_parameter(model)
    names = [use.name for _, own in uses for use in own]
    is_chosen = Choice(include, exclude, names)
    chosen = []
    for parameter, own in uses:
        if is_chosen(*(use.name for use in own), default=_is_layer(own)):
            if isinstance(parameter, UninitializedParameter):
                raise ValueError(f"model has the lazy parameter {own[0].name!r}: run one forward pass before sparsify.")
            chosen.append(layer_of(parameter, own))
    return with_axes(chosen, axes, names, stacked, fused)


def layers_of(
    model: nn.Module,
    layers: Sequence[Layer] | None,
    include: Sequence[str],
    exclude: Sequence[str],
    axes: Axes | None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
    *,
    unmade: bool = False,
) -> Sequence[Layer]:
    """The layers that the user gave, or those that `choose_layers` finds; warns of weights that cannot be layers.

    Parameters without values (on the meta device) are refused, unless ``unmade`` says that they are to be made.

    Raises:
        TypeError, ValueError: naming the parameter or the layer, also if it is one that cannot be sparsified.
    """
    if layers is not None and (include or exclude or axes or stacked or fused):
        raise errors.too_many_choices("include", "exclude", "axes", "stacked", "fused")
    if layers is None:
        layers = choose_layers(model, include, exclude, axes, stacked, fused)
        warn_of(_left_out(model, {layer.name for layer in layers}, exclude))
        if not layers:
            raise errors.nothing_chosen(_seen_in(model))
    chosen = check_layers(layers)
    for layer, parameter in zip(chosen, parameters_of(model, chosen), strict=True):
        _check(layer, parameter, unmade=unmade)
    return chosen


def _left_out(model: nn.Module, chosen: set[str], exclude: Sequence[str]) -> Iterator[Computed]:
    """Weights that would be layers if they were not computed, unless the user has named what they are computed from."""
    for weight in computed_weights(model):
        named = [name for name in weight.sources if name in chosen or first_match(name, dict.fromkeys(exclude, True))]
        if _is_layer([_use(weight.module, weight.full_name, weight.name)]) and not named:
            yield weight


def _seen_in(model: nn.Module) -> list[str]:
    """What a model has: its parameters with their shapes and modules."""
    return [
        f"{name!r} {tuple(param.shape)} of {type(model.get_submodule(name.rpartition('.')[0])).__name__}"
        for name, param in model.named_parameters()
        if not isinstance(param, UninitializedParameter)
    ]


def parameters_of(model: nn.Module, layers: Iterable[Layer]) -> list[nn.Parameter]:
    """The parameters of layers that `choose_layers` or a user chose.

    Raises:
        ValueError: naming the layer, if the model has no such parameter, or has it twice among the layers, or gives it
            sparse gradient tensors.
    """
    by_name = {use.name: (parameter, own) for parameter, own in uses_by_parameter(model) for use in own}
    found: dict[nn.Parameter, str] = {}
    for layer in layers:
        parameter, uses = by_name.get(layer.name, (None, []))
        if parameter is None or isinstance(parameter, UninitializedParameter) or tuple(parameter.shape) != layer.shape:
            raise errors.no_such_array(layer)
        if parameter in found:
            raise errors.tied(found[parameter], layer.name)
        if any(use.sparse_gradient for use in uses):
            raise ValueError(
                f"layer {layer.name!r} is an embedding with sparse gradient tensors: make it with sparse=False, or "
                "exclude it."
            )
        found[parameter] = layer.name
    return list(found)


def _check(layer: Layer, parameter: nn.Parameter, *, unmade: bool) -> None:
    errors.check_dtype(layer, parameter.dtype)
    if parameter.is_meta and not unmade:
        raise ValueError(
            f"layer {layer.name!r} is on the meta device, without values: materialize it first, or let it hold active "
            "weights alone (storage='active')."
        )
    if type(parameter.detach()) is not Tensor and not is_sharded(parameter):
        raise ValueError(
            f"layer {layer.name!r} is a {type(parameter.detach()).__name__}: wrapped tensors, other than DTensors, "
            "cannot be sparsified; exclude the layer."
        )
    placements: Any = getattr(parameter, "placements", ())
    if any(placement.is_partial() for placement in placements):
        raise ValueError(
            f"layer {layer.name!r} is a DTensor with the placements {placements}, whose parts must be added up first: "
            "redistribute it, or exclude the layer."
        )
    if not parameter.requires_grad:
        raise ValueError(f"layer {layer.name!r} is frozen (requires_grad=False): exclude it, or train it.")


def layer_of(parameter: nn.Parameter, uses: Sequence[_Use]) -> Layer:
    """A parameter as a layer, with the axes that a module tells, under the first of its names."""
    axes = next((use.axes for use in uses if use.axes), {})
    return Layer(uses[0].name, tuple(parameter.shape), **axes)


def _is_layer(uses: Sequence[_Use]) -> bool:
    return any(use.sparse for use in uses) and not any(use.keeps_dense for use in uses)


def uses_by_parameter(model: nn.Module) -> list[tuple[nn.Parameter, list[_Use]]]:
    """Every parameter of a model, once, in its order, with all its uses.

    Raises:
        TypeError: for what is no model.
    """
    if not isinstance(model, nn.Module):
        raise errors.wrong_type("model", model, "torch.nn.Module")
    uses: dict[int, tuple[nn.Parameter, list[_Use]]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own_name, parameter in module.named_parameters(prefix, recurse=False, remove_duplicate=False):
            use = _use(module, own_name, own_name.removeprefix(prefix).removeprefix("."))
            uses.setdefault(id(parameter), (parameter, []))[1].append(use)
    return list(uses.values())


def _use(module: nn.Module, name: str, own_name: str) -> _Use:
    if own_name == "weight":
        if _is_conv1d(module):
            return _Use(name, _IN_OUT, sparse=True)
        if isinstance(module, nn.Linear):
            return _Use(name, _OUT_IN, sparse=True)
        if isinstance(module, _ConvNd):
            return _convolution(module, name)
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            return _Use(name, _IN_OUT, sparse=False, keeps_dense=True, sparse_gradient=module.sparse)
    recurrent = isinstance(module, nn.RNNBase | nn.RNNCellBase) and _RECURRENT.fullmatch(own_name) is not None
    attention = isinstance(module, nn.MultiheadAttention) and own_name.endswith("proj_weight")
    if recurrent or attention:
        return _Use(name, _OUT_IN, sparse=True)
    return _Use(name, {}, sparse=False)


def _is_conv1d(module: nn.Module) -> bool:
    """Whether this is transformers' Conv1D, a linear layer that stores (in, out); all of GPT-2's weights are."""
    weight: Any = module.weight
    named_so = any(cls.__name__ == "Conv1D" for cls in type(module).__mro__)
    return named_so and tuple(weight.shape[1:]) == (getattr(module, "nf", None),)


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
