"""`sparse_linear`: the product of inputs and the active weights of a matrix.

Between two sparse layers activations stay feature by feature in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from rigl_backends.jax.active_weight import ActiveWeight, Layout
from rigl_backends.jax.link import Floats, Link, Sample
from rigl_backends.jax.sparse_product import check, product
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
    layout = weight.layout
    if layout.kernel is not None:
        raise ValueError(f"the weight of {layout.name!r} is the kernel of a convolution: call sparse_conv with it.")
    check(weight, x, inputs_first=inputs_first)
    if x.shape[-1:] != (layout.cols,):
        raise ValueError(f"x has shape {x.shape}: layer {layout.name!r} has {layout.cols} inputs.")
    y = product(_Linear(), weight, x.reshape(math.prod(x.shape[:-1]), layout.cols).T)
    return y.T.reshape(*x.shape[:-1], layout.rows)


@dataclass(frozen=True)
class _Linear:
    """The kernels' layout is (features, batch)."""

    function: ClassVar[str] = "sparse_linear"
    inputs: ClassVar[str] = "(..., inputs)"

    def outputs(self, layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
        return layout.rows, shape[1]

    def forward(self, link: Link, index: Index, values: Floats, x: Floats) -> Floats:
        return link.kernels.forward(index, values, x, threads=link.threads)

    def backward(
        self, link: Link, index: Index, values: Floats, x: Floats, dy: Floats, *, needs_inputs: bool
    ) -> tuple[Floats | None, Floats, Sample]:
        dx, gradient = link.kernels.backward(index, values, x, dy, needs_inputs=needs_inputs, threads=link.threads)
        return dx, gradient, (x, dy)
