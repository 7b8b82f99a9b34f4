"""Which variables of a Keras model are layers, and what their axes mean.

A model tells exactly. Variables alone tell what Keras wrote into their paths: the variable's own name and
the name of the Keras layer that owns it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from keras import layers as kl

from rigl_backends.keras_common.variables import shape_of, variable_name, variables_of
from rigl_core.adapter import Axes, Choice, Fused, Layer, Stacked, check_layers, errors, with_axes


class _Kind(NamedTuple):
    """What is known about a variable."""

    sparse: bool | None
    """Whether it is a layer by default; None if its path does not tell."""
    axes: Mapping[str, Any] = {}


_UNKNOWN = _Kind(sparse=False)
_IN_OUT = _Kind(True, {"in_axes": (-2,), "out_axes": (-1,)})
_OUT_IN = _Kind(True, {"in_axes": (-1,), "out_axes": (-2,)})
_EMBEDDING = _IN_OUT._replace(sparse=False)

_KINDS_BY_OWNER = {
    r"dense|conv[123]d|(lstm|gru|simple_rnn)_cell": _IN_OUT,
    r"conv[123]d_transpose": _OUT_IN,
    r"einsum_dense|query|key|value|attention_output": _Kind(sparse=True),
    r"depthwise_conv[12]d": _UNKNOWN,
}
"""Kernels by the name that Keras gives a layer by default, without its number."""


def choose_layers(
    model: kl.Layer | Sequence[Any],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> list[Layer]:
    """The layers of a model, or among variables, in their order.

    By default the kernels of Dense, EinsumDense, Conv1D to Conv3D and their transposed versions, the
    pointwise kernels of separable convolutions, and the kernels and recurrent kernels of LSTM, GRU and
    SimpleRNN. Biases, norms, embeddings and depthwise kernels stay dense.

    Args:
        model: a built model, whose trainable variables are chosen from; or what the optimizer trains. Variables alone
            tell by their paths: one named ``kernel`` with two axes is chosen, one with more axes if its layer has a
            default name of Keras.
        include: name patterns of variables to choose besides.
        exclude: name patterns of variables not to choose; goes before ``include``.
        axes: in and out axes by name pattern (first match wins), before what the model tells.
        stacked: axes along which layers are stacked, as for `sparsify`.
        fused: parts that are fused along an axis, as for `sparsify`.

    Raises:
        TypeError, ValueError: for what is no built model, a pattern that matches no variable, axes that do not fit, or
            a path that does not tell a depthwise kernel from others.
    """
    return layers_among(
        variables_of(model), model if isinstance(model, kl.Layer) else None, include, exclude, axes, stacked, fused
    )


def layers_of(
    model: kl.Layer | Sequence[Any],
    layers: Sequence[Layer] | None,
    include: Sequence[str],
    exclude: Sequence[str],
    axes: Axes | None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> tuple[Layer, ...]:
    """The layers that the user gave, or those that `choose_layers` finds.

    Raises:
        TypeError, ValueError: naming the parameter or the layer, also if it is one that cannot be sparsified.
    """
    if layers is not None and (include or exclude or axes or stacked or fused):
        raise errors.too_many_choices("include", "exclude", "axes", "stacked", "fused")
    variables = variables_of(model)
    chosen = choose_layers(model, include, exclude, axes, stacked, fused) if layers is None else layers
    if layers is None and not chosen:
        raise errors.nothing_chosen([f"{variable_name(one)!r} {tuple(one.shape)}" for one in variables])
    chosen = check_layers(chosen)
    find_layers(chosen, variables)
    return chosen


def layers_among(
    variables: Sequence[Any],
    model: kl.Layer | None,
    include: object,
    exclude: object,
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> list[Layer]:
    """The layers among some variables of a model, or among variables whose paths decide; see `choose_layers`."""
    names = [variable_name(variable) for variable in variables]
    choice = Choice(include, exclude, names)
    known = {} if model is None else _kinds_in(model)
    chosen = []
    for name, variable in zip(names, variables, strict=True):
        shape = shape_of(variable)
        kind = _kind_by_path(name, len(shape)) if model is None else known.get(id(variable), _UNKNOWN)
        is_chosen = choice(name, default=kind.sparse)
        if is_chosen is None:
            raise ValueError(
                f"layer {name!r} has the shape {shape}, and its path does not tell whether its kernel is depthwise: "
                "give sparsify the model (model=model), or name the layer in include or exclude."
            )
        if is_chosen:
            chosen.append(Layer(name, shape, **_counted_from_front(kind.axes, len(shape))))
    return with_axes(chosen, axes, names, stacked, fused)


def others_among(variables: Sequence[Any], layers: Sequence[Layer]) -> dict[str, int]:
    """The sizes of the variables that are no layers, by name."""
    names = {layer.name for layer in layers}
    sizes = {variable_name(variable): math.prod(shape_of(variable)) for variable in variables}
    return {name: size for name, size in sizes.items() if name not in names}


def named_as(variables: Sequence[Any], layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers under the names of their variables, which may differ in a loaded model, if these are unique."""
    names = [variable_name(variable) for variable in variables]
    if len(set(names)) < len(names):
        return tuple(layers)
    return tuple(dataclasses.replace(layer, name=name) for layer, name in zip(layers, names, strict=True))


def find_layers(layers: Sequence[Layer], variables: Sequence[Any], positions: Sequence[int] | None = None) -> list[int]:
    """The positions of the layers' variables: by name, unless they are known.

    Raises:
        ValueError: if there is no such variable, or it cannot have a mask.
    """
    by_name = {variable_name(variable): i for i, variable in enumerate(variables)}
    found = [by_name.get(layer.name, -1) for layer in layers] if positions is None else list(positions)
    for layer, i in zip(layers, found, strict=True):
        if i not in range(len(variables)) or shape_of(variables[i]) != layer.shape:
            raise errors.no_such_array(layer)
        errors.check_dtype(layer, getattr(variables[i].dtype, "name", variables[i].dtype))
    return found


def _kind_by_path(path: str, rank: int) -> _Kind:
    *_, owner, own_name = "", *path.split("/")
    if own_name == "pointwise_kernel" or (own_name == "recurrent_kernel" and rank == 2):
        return _IN_OUT
    if own_name not in ("kernel", "recurrent_kernel") or rank < 2:
        return _UNKNOWN
    default_name = re.sub(r"_\d+$", "", owner)
    for pattern, kind in _KINDS_BY_OWNER.items():
        if re.fullmatch(pattern, default_name):
            return kind
    return _Kind(sparse=True if rank == 2 else None)


def _kinds_in(model: kl.Layer) -> dict[int, _Kind]:
    """What each variable of a model is, by its id; a use that keeps it dense goes before others."""
    kinds: dict[int, _Kind] = {}
    for layer in model._flatten_layers():
        for variable, kind in _kinds_of(layer):
            if id(variable) not in kinds or not kind.sparse:
                kinds[id(variable)] = kind
    return kinds


def _kinds_of(layer: kl.Layer) -> Iterator[tuple[Any, _Kind]]:
    own = {variable.name: variable for variable in layer.weights}
    match layer:
        case kl.Dense() | kl.LSTMCell() | kl.GRUCell() | kl.SimpleRNNCell():
            kinds = {"kernel": _IN_OUT, "recurrent_kernel": _IN_OUT}
        case kl.EinsumDense():
            kinds = {"kernel": _einsum_kind(layer.equation)}
        case kl.Conv1D() | kl.Conv2D() | kl.Conv3D():
            kinds = {"kernel": _convolution_kind(layer)}
        case kl.Conv1DTranspose() | kl.Conv2DTranspose() | kl.Conv3DTranspose():
            kinds = {"kernel": _OUT_IN}
        case kl.DepthwiseConv1D() | kl.DepthwiseConv2D():
            kinds = {"kernel": _depthwise_kind(own["kernel"])}
        case kl.SeparableConv1D() | kl.SeparableConv2D():
            kinds = {"depthwise_kernel": _depthwise_kind(own["depthwise_kernel"]), "pointwise_kernel": _IN_OUT}
        case kl.Embedding():
            kinds = {"embeddings": _EMBEDDING}
        case _:
            kinds = {}
    return ((own[name], kind) for name, kind in kinds.items() if name in own)


def _convolution_kind(layer: kl.Layer) -> _Kind:
    # Stored (..., inputs of one group, outputs).
    depthwise = layer.groups > 1 and shape_of(layer.kernel)[-2] == 1
    return _Kind(not depthwise, {**_IN_OUT.axes, "groups": layer.groups, "depthwise": depthwise})


def _depthwise_kind(kernel: Any) -> _Kind:
    # Stored (..., inputs, outputs of one input): the out axis is the one divided by the groups.
    return _Kind(False, {**_IN_OUT.axes, "groups": kernel.shape[-2], "grouped_axes": "out", "depthwise": True})


def _einsum_kind(equation: str) -> _Kind:
    """Letters summed over are in axes; letters that only the kernel brings into the output are out axes."""
    inputs, kernel, outputs = re.split(",|->", equation.replace(" ", ""))
    in_axes = tuple(i for i, letter in enumerate(kernel) if letter in inputs and letter not in outputs)
    out_axes = tuple(i for i, letter in enumerate(kernel) if letter in outputs and letter not in inputs)
    return _Kind(bool(in_axes and out_axes), {"in_axes": in_axes, "out_axes": out_axes})


def _counted_from_front(axes: Mapping[str, Any], rank: int) -> dict[str, Any]:
    return {
        key: tuple(axis % rank for axis in value) if key in ("in_axes", "out_axes") else value
        for key, value in axes.items()
    }
