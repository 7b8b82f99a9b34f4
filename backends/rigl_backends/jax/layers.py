"""Which arrays of a parameter tree are layers, and what their axes mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.tree_util import DictKey, GetAttrKey, SequenceKey, tree_flatten_with_path

from rigl_backends.jax.trees import Path, Tree, is_floating, name_of, named_leaves, shape_of
from rigl_core.adapter import (
    Axes,
    Choice,
    Fused,
    Layer,
    Stacked,
    beside_stack,
    errors,
    stack_axes_of,
    with_axes,
    without_stack,
)

_ATTENTION = ("query", "key", "value", "out")
_AXES_OF_CONV = 5
_NEVER_BY_RANK = ("bias", "scale", "embedding", "embeddings")


class _Use(NamedTuple):
    """A library's convention for an array: whether it is a sparse layer by default, and its axes."""

    sparse: bool
    axes: dict[str, Any]


def choose_layers(
    params: Tree,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> list[Layer]:
    """The layers of a parameter tree, in the order of its leaves (JAX sorts the keys of dicts).

    By default the arrays of two and more axes called ``kernel`` (flax) or ``weight`` (equinox, whose
    modules tell what they are); in a tree that has none of these (a plain dict, Haiku), all arrays of two
    and more axes except ``bias``, ``scale`` and ``embedding``. Biases, norms, embeddings and depthwise
    kernels stay dense. A flax kernel with a single input channel does too: the arrays do not tell a
    depthwise convolution from the first one of a grey image; ``include`` sparsifies it.

    In and out axes come from the same conventions and are unknown otherwise, as for plain dicts; only ER and
    structures ask for them, and refuse a layer whose axes are unknown: give ``axes``. flax: (in, out), for names with
    "conv" (..., in, out), for attention (in, heads, depth) and (heads, depth, out). equinox: (out, in, ...).
    Of stacks of layers, as flax's ``nn.scan`` and equinox's ``filter_vmap`` make them, they are known if ``stacked``
    names the axis of the stack: the conventions then tell of one of its layers.

    Args:
        params: any pytree of arrays (or of their shapes and dtypes).
        include: name patterns of arrays to choose besides.
        exclude: name patterns of arrays not to choose; goes before ``include``.
        axes: in and out axes by name pattern (first match wins), before any convention.
        stacked: axes along which layers are stacked, as for `sparsify`.
        fused: parts that are fused along an axis, as for `sparsify`.

    Raises:
        TypeError, ValueError: for a pattern that matches no array, or an array that cannot be a layer.
    """
    arrays = named_leaves(params)
    is_chosen = Choice(include, exclude, list(arrays))
    stacks = {name: stack_axes_of(name, stacked) for name in arrays}
    shapes = {name: without_stack(shape_of(array), stacks[name]) for name, array in arrays.items()}
    uses = {name_of(path): _use(params, path, leaf, shapes) for path, leaf in tree_flatten_with_path(params)[0]}
    named = any(use is not None and use.sparse for use in uses.values())
    chosen = []
    for name, array in arrays.items():
        use = uses[name] or _Use(not named and _may_be_plain_layer(name, array, shapes[name]), {})
        if is_chosen(name, default=use.sparse):
            chosen.append(Layer(name, shape_of(array), **_beside_stack(use.axes, stacks[name])))
    _check_dtypes(chosen, arrays)
    return with_axes(chosen, axes, list(arrays), stacked, fused)


def layers_of(
    params: Tree,
    layers: Sequence[Layer] | None,
    include: Sequence[str],
    exclude: Sequence[str],
    axes: Axes | None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> tuple[Layer, ...]:
    """The layers that the user gave, or those that `choose_layers` finds."""
    check_choice(layers, include, exclude, axes, stacked, fused)
    if layers is None:
        return tuple(choose_layers(params, include, exclude, axes, stacked, fused))
    arrays = named_leaves(params)
    for layer in layers:
        if layer.name not in arrays or shape_of(arrays[layer.name]) != layer.shape:
            raise errors.no_such_array(layer)
    _check_dtypes(layers, arrays)
    return tuple(layers)


def other_sizes(params: Tree, layers: Sequence[Layer]) -> dict[str, int]:
    """The sizes of the floating-point arrays that are no layers, by name."""
    names = {layer.name for layer in layers}
    return {name: leaf.size for name, leaf in named_leaves(params).items() if name not in names and is_floating(leaf)}


def check_choice(layers: Sequence[Layer] | None, *others: object) -> None:
    """Refuse layers together with ``include``, ``exclude`` and the like."""
    if layers is not None and any(others):
        raise errors.too_many_choices("include", "exclude", "axes", "stacked", "fused")


def transposed_layers(params: Tree) -> set[str]:
    """The names of arrays that belong to transposed convolutions: equinox's class tells, or the name of a module."""
    found = set()
    for path, _ in tree_flatten_with_path(params)[0]:
        kinds = {cls.__name__ for cls in type(_owner(params, path)).__mro__}
        name = name_of(path)
        if "ConvTranspose" in kinds or "transpose" in name.rpartition("/")[0].rpartition("/")[2].lower():
            found.add(name)
    return found


def _check_dtypes(layers: Sequence[Layer], arrays: Mapping[str, Any]) -> None:
    """Refuse layers of integers, booleans, complex or 8-bit numbers."""
    for layer in layers:
        errors.check_dtype(layer, arrays[layer.name].dtype)


def _use(params: Tree, path: Path, leaf: Any, shapes: Mapping[str, tuple[int, ...]]) -> _Use | None:
    """Ask the conventions of the library that owns a leaf; None if none is known."""
    name = name_of(path)
    shape = shapes[name]
    own_name = name.rpartition("/")[2]
    owner = _owner(params, path)
    if type(owner).__module__.startswith("equinox.nn"):
        return _equinox_use(owner, own_name, len(shape))
    if len(shape) < 2 or not is_floating(leaf):
        return None
    if own_name == "kernel":
        return _flax_use(name, shape, shapes)
    return _Use(sparse=True, axes={}) if own_name == "weight" else None


def _flax_use(name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> _Use:
    module, _, role = name.removesuffix("/kernel").rpartition("/")
    if _is_attention(module, role, shapes):
        heads = {"in_axes": (0, 1), "out_axes": (2,)} if role == "out" else {"in_axes": (0,), "out_axes": (1, 2)}
        return _Use(sparse=True, axes=heads)
    last = {"in_axes": (len(shape) - 2,), "out_axes": (len(shape) - 1,)}
    if len(shape) == 2:
        return _Use(sparse=True, axes=last)
    # A kernel of three axes can be a convolution's, a DenseGeneral's or a stack of Dense's: only a name tells.
    conv = "conv" in name.lower() and not re.search("dense|linear", role.lower()) and len(shape) <= _AXES_OF_CONV
    return _Use(sparse=shape[-2] != 1, axes=last if conv else {})


def _is_attention(module: str, role: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a module has the four kernels of attention, and their axes are no stack's.

    Of query, key and value they are (in, heads, depth), and (heads, depth, out) of out. In a stack of four Dense they
    are (layers, in, out): all begin alike. Where everything is of one size, nothing tells.
    """
    own = [shapes.get(f"{module}/{other}/kernel" if module else f"{other}/kernel", ()) for other in _ATTENTION]
    if role not in _ATTENTION or any(len(shape) != 3 for shape in own):
        return False
    *inward, out = own
    return all(shape[1:] == out[:2] for shape in inward) and any(shape[0] != out[0] for shape in inward)


def _equinox_use(owner: Any, own_name: str, rank: int) -> _Use:
    """Asked by class name, so that nobody needs equinox; subclasses count as their equinox class.

    An array with more axes than its module says is a stack, as ``filter_vmap`` makes it, whose axes are unknown.
    """
    classes = {cls.__name__ for cls in type(owner).__mro__ if cls.__module__.startswith("equinox.nn")}
    axes: dict[str, Any] = {"in_axes": (1,), "out_axes": (0,)}
    if classes & {"Conv", "ConvTranspose"} and own_name == "weight":
        depthwise = owner.groups > 1 and owner.groups == owner.in_channels
        of_one = rank == owner.num_spatial_dims + 2
        return _Use(not depthwise, {**axes, "groups": owner.groups, "depthwise": depthwise} if of_one else {})
    linear = "Linear" in classes and own_name == "weight"
    recurrent = bool(classes & {"GRUCell", "LSTMCell"}) and own_name in ("weight_ih", "weight_hh")
    return _Use(linear or recurrent, axes if (linear or recurrent) and rank == 2 else {})


def _owner(node: Any, path: Path) -> Any:
    """The object that holds the leaf, as far as its path can be walked."""
    for key in path[:-1]:
        if isinstance(key, GetAttrKey):
            node = getattr(node, key.name)
        elif isinstance(key, DictKey | SequenceKey):
            node = node[key.key if isinstance(key, DictKey) else key.idx]
        else:
            return None
    return node


def _beside_stack(axes: Mapping[str, Any], stack_axes: Sequence[int]) -> dict[str, Any]:
    """The axes of one layer of a stack, counted in the whole array."""
    own = {key: beside_stack(axes[key], stack_axes) for key in ("in_axes", "out_axes") if key in axes}
    return {**axes, **own}


def _may_be_plain_layer(name: str, array: Any, shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and name.rpartition("/")[2] not in _NEVER_BY_RANK and is_floating(array)
