"""`sparse_linear`: the product of inputs and a layer's active weights.

NumPy's and numba's kernels work where XLA's buffers lie. Between two sparse layers activations stay feature by feature
in memory: XLA chooses the layout that makes their transpositions free.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import custom_vmap
from jax.experimental.buffer_callback import buffer_callback

from rigl_backends.jax.active_weight import ActiveWeight, Layout, digest_of
from rigl_backends.jax.link import Link
from rigl_backends.jax.trees import is_traced, spec
from rigl_core.adapter import Index


def sparse_linear(weight: ActiveWeight | Array, x: Array, *, inputs_first: bool = True) -> Array:
    """The outputs of a layer without its bias: ``x @ weight`` as far as weights are active.

    It works inside ``jit``, ``grad`` and ``scan``, on CPUs, and is differentiable once.

    Args:
        weight: the active weights; or a dense array, for layers that keep their masks.
        x: inputs (..., inputs), float32.
        inputs_first: whether the dense array is (inputs, outputs), as in flax, and not (outputs, inputs), as in
            equinox.

    Returns:
        Outputs (..., outputs), float32.

    Raises:
        TypeError, ValueError: if the inputs or the weights have another dtype, device or size than they can have, or
            if they were averaged.
    """
    if not isinstance(weight, ActiveWeight):
        return x @ (weight if inputs_first else weight.T)
    _check(weight, x, inputs_first)
    layout = weight.layout
    y = _product(weight, x.reshape(math.prod(x.shape[:-1]), layout.cols))
    return y.reshape(*x.shape[:-1], layout.rows)


def _check(weight: ActiveWeight, x: Array, inputs_first: bool) -> None:
    layout = weight.layout
    if layout.inputs_first != inputs_first:
        raise ValueError(
            f"the weight of {layout.name!r} is of shape {layout.shape}: give inputs_first={not inputs_first}."
        )
    weight.check_dtypes()
    if x.dtype != jnp.float32:
        raise TypeError(f"x is {x.dtype}: the kernels of sparse layers multiply float32.")
    if x.shape[-1:] != (layout.cols,):
        raise ValueError(f"x has shape {x.shape}: layer {layout.name!r} has {layout.cols} inputs.")
    if jax.default_backend() != "cpu":
        raise ValueError(
            f"layer {layout.name!r} holds active weights, whose kernels run on CPUs, but the default device is a "
            f"{jax.default_backend()}: use storage='masks'."
        )
    if jax.sharding.get_abstract_mesh().manual_axes:
        raise ValueError(
            f"layer {layout.name!r} is in a shard_map or pmap, where layers keep masks: use storage='masks'."
        )


@jax.custom_vjp
def _product(weight: ActiveWeight, x: Array) -> Array:
    return _forward(weight, x)


def _forward(weight: ActiveWeight, x: Array) -> Array:
    like = spec((weight.layout.rows, x.shape[0]), jnp.float32)
    function = functools.partial(_forward_on_host, weight.layout, weight.link)
    (y,) = _called(function, [like], *_arrays(weight), x.T)
    return y.T


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Call:
    """What JAX knows of a use of a layer while it traces: its number, and whether the inputs need a gradient."""

    number: int = field(metadata={"static": True})
    needs_inputs: bool = field(metadata={"static": True})


def _fwd(weight: Any, x: Any) -> tuple[Array, Any]:
    own: ActiveWeight = jax.tree.map(lambda leaf: leaf.value, weight)
    return _forward(own, x.value), (own, x.value, _Call(own.link.called(), x.perturbed))


def _bwd(kept: Any, dy: Any) -> tuple[ActiveWeight, Array]:
    weight, x, call = kept
    if not isinstance(dy, Array):  # a symbolic zero
        dy = jnp.zeros(dy.shape, dy.dtype)
    like = [spec(array.shape, jnp.float32) for array in (weight.values, *([x.T] if call.needs_inputs else []))]
    function = functools.partial(_backward_on_host, weight.layout, weight.link, call)
    gradient, *dx = _called(function, like, *_arrays(weight), x.T, dy.T)
    zeros = jax.tree.map(jnp.zeros_like, weight)
    own = ActiveWeight(gradient, zeros.columns, zeros.pointers, zeros.marks, weight.layout, weight.link)
    return own, dx[0].T if call.needs_inputs else jnp.zeros_like(x)


_product.defvjp(_fwd, _bwd, symbolic_zeros=True)


def _arrays(weight: ActiveWeight) -> tuple[Array, ...]:
    return weight.columns, weight.pointers, weight.marks, weight.values


def _called(function: Callable[..., list[Any]], like: list[Any], *arrays: Array) -> list[Array]:
    """What a function of NumPy arrays gives. It takes contiguous ones, and may not keep them."""
    if not is_traced(arrays):  # a callback would be compiled at every call
        return [jnp.asarray(array) for array in function(*(np.ascontiguousarray(array) for array in arrays))]

    def write(_: Any, results: Any, *given: Any) -> None:
        for result, array in zip(results, function(*map(np.asarray, given)), strict=True):
            np.copyto(np.asarray(result), array)

    @custom_vmap
    def call(*arrays: Array) -> list[Array]:
        return list(buffer_callback(write, tuple(like))(*arrays))

    @call.def_vmap
    def refuse(*_: Any) -> Any:
        raise ValueError(
            "sparse_linear is inside vmap: call it on the whole batch, whose inputs are (..., inputs), outside of vmap."
        )

    called: list[Array] = call(*arrays)
    return called


def _forward_on_host(layout: Layout, link: Link, columns: Any, pointers: Any, marks: Any, values: Any, x: Any) -> Any:
    index = _index(layout, columns, pointers, marks)
    return [link.kernels.forward(index, values, x, threads=link.threads)]


def _backward_on_host(
    layout: Layout,
    link: Link,
    call: _Call,
    columns: Any,
    pointers: Any,
    marks: Any,
    values: Any,
    x: Any,
    dy: Any,
) -> list[Any]:
    index = _index(layout, columns, pointers, marks)
    dx, gradient = link.kernels.backward(index, values, x, dy, needs_inputs=call.needs_inputs, threads=link.threads)
    link.see(layout.name, float(marks[2]), call.number, x, dy, gradient)
    return [gradient] if dx is None else [gradient, dx]


def _index(layout: Layout, columns: Any, pointers: Any, marks: Any) -> Index:
    """The index of a weight, after a look whether it is one, since a kernel follows it through memory."""
    index = layout.index(columns, pointers)
    if not np.array_equal(digest_of(index), marks[:2]):
        raise ValueError(
            f"the index of {layout.name!r} is not one that an update made: something computed with it, such as an "
            "average of parameters. Average the dense() weights."
        )
    return index
