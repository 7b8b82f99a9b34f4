"""The product of inputs and a layer's active weights, which JAX can trace and differentiate once.

NumPy's and numba's kernels work where XLA's buffers lie, on arrays in the kernels' own layout. XLA chooses the layout
that makes the transpositions between sparse layers free.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import custom_vmap
from jax.experimental.buffer_callback import buffer_callback

from rigl_backends.jax.active_weight import ActiveWeight, Layout, digest_of
from rigl_backends.jax.link import Floats, Link, Sample
from rigl_backends.jax.trees import is_traced, spec
from rigl_core.adapter import Index


class Kind(Protocol):
    """How a kind of layer multiplies, on the host. JAX keeps compiled code under it: equal kinds do the same.

    Attributes:
        function: what users call.
        inputs: the shape of its inputs, in words.
    """

    function: ClassVar[str]
    inputs: ClassVar[str]

    def outputs(self, layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the outputs, by that of the inputs."""

    def forward(self, link: Link, index: Index, values: Floats, x: Floats) -> Floats:
        """The outputs."""

    def backward(
        self, link: Link, index: Index, values: Floats, x: Floats, dy: Floats, *, needs_inputs: bool
    ) -> tuple[Floats | None, Floats, Sample]:
        """The gradients of the inputs, or None, and of the active weights; and the sample that an update may read."""


def check(weight: ActiveWeight, x: Array, *, inputs_first: bool) -> None:
    """Refuse weights, inputs or places that no kind of kernel can work with.

    Raises:
        TypeError, ValueError: naming the layer or the parameter.
    """
    layout = weight.layout
    if layout.inputs_first != inputs_first:
        raise ValueError(
            f"the weight of {layout.name!r} is of shape {layout.shape}: give inputs_first={not inputs_first}."
        )
    weight.check_dtypes()
    if x.dtype != jnp.float32:
        raise TypeError(f"x is {x.dtype}: the kernels of sparse layers multiply float32.")
    if jax.default_backend() != "cpu":
        raise ValueError(
            f"layer {layout.name!r} holds active weights, whose kernels run on CPUs, but the default device is a "
            f"{jax.default_backend()}: use storage='masks'."
        )
    if jax.sharding.get_abstract_mesh().manual_axes:
        raise ValueError(
            f"layer {layout.name!r} is in a shard_map or pmap, where layers keep masks: use storage='masks'."
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(kind: Kind, weight: ActiveWeight, x: Array) -> Array:
    """The outputs without the bias; inputs and outputs are in the kernels' layout."""
    return _forward(kind, weight, x)


def _forward(kind: Kind, weight: ActiveWeight, x: Array) -> Array:
    like = spec(kind.outputs(weight.layout, x.shape), jnp.float32)
    function = functools.partial(_forward_on_host, kind, weight.layout, weight.link)
    (y,) = _called(kind, function, [like], *_arrays(weight), x)
    return y


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Call:
    """What JAX knows of a use of a layer while it traces: its number, and whether the inputs need a gradient."""

    number: int = field(metadata={"static": True})
    needs_inputs: bool = field(metadata={"static": True})


def _fwd(kind: Kind, weight: Any, x: Any) -> tuple[Array, Any]:
    own: ActiveWeight = jax.tree.map(lambda leaf: leaf.value, weight)
    return _forward(kind, own, x.value), (own, x.value, _Call(own.link.called(), x.perturbed))


def _bwd(kind: Kind, kept: Any, dy: Any) -> tuple[ActiveWeight, Array]:
    weight, x, call = kept
    if not isinstance(dy, Array):  # a symbolic zero
        dy = jnp.zeros(dy.shape, dy.dtype)
    like = [spec(array.shape, jnp.float32) for array in (weight.values, *([x] if call.needs_inputs else []))]
    function = functools.partial(_backward_on_host, kind, weight.layout, weight.link, call)
    gradient, *dx = _called(kind, function, like, *_arrays(weight), x, dy)
    zeros = jax.tree.map(jnp.zeros_like, weight)
    own = ActiveWeight(gradient, zeros.columns, zeros.pointers, zeros.marks, weight.layout, weight.link)
    return own, dx[0] if call.needs_inputs else jnp.zeros_like(x)


product.defvjp(_fwd, _bwd, symbolic_zeros=True)


def _arrays(weight: ActiveWeight) -> tuple[Array, ...]:
    return weight.columns, weight.pointers, weight.marks, weight.values


def _called(kind: Kind, function: Callable[..., list[Any]], like: list[Any], *arrays: Array) -> list[Array]:
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
            f"{kind.function} is inside vmap: call it on the whole batch, whose inputs are {kind.inputs}, outside of "
            "vmap."
        )

    called: list[Array] = call(*arrays)
    return called


def _forward_on_host(
    kind: Kind, layout: Layout, link: Link, columns: Any, pointers: Any, marks: Any, values: Any, x: Any
) -> list[Any]:
    return [kind.forward(link, _index(layout, columns, pointers, marks), values, x)]


def _backward_on_host(
    kind: Kind,
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
    dx, gradient, sample = kind.backward(link, index, values, x, dy, needs_inputs=call.needs_inputs)
    link.see(layout.name, float(marks[2]), call.number, sample, gradient)
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
