"""The products of one layer in JAX, forward and backward: sparse, by kernels alone, or dense."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Act = Callable[[], object]


class Layer:
    """A layer, its inputs and the gradient of its outputs, sample by sample, with channels last.

    Args:
        shape: of the kernel, which ends with inputs and outputs.
        samples: the shape of inputs and outputs without their features.
        density: the share of its connections that is active.
        threads: what the kernels and XLA work with.
    """

    def __init__(self, shape: tuple[int, ...], samples: tuple[int, ...], density: float, threads: int) -> None:
        if threads == 1:  # before JAX starts
            os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        import jax.numpy as jnp
        import optax

        from rigl_backends.jax import apply_masks, sparse_conv, sparse_linear, sparsify
        from rigl_core import SparsityWarning, Static, Uniform

        random, rank = np.random.default_rng(0), len(shape)
        recipe = Static(1 - density, distribution=Uniform(first_dense=False))
        tx = sparsify(optax.sgd(0.1), recipe, axes={"own": ((rank - 2,), (rank - 1,))}, storage={"own": "active"})
        dense = {"own": jnp.asarray(random.standard_normal(shape, np.float32))}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SparsityWarning)
            self.weight = apply_masks(dense, tx.init(dense))["own"]
        self.weight.link.threads = threads
        self.matrix = dense["own"]
        self.x, self.dy = (
            jnp.asarray(random.standard_normal((*samples, features), np.float32)) for features in shape[-2:]
        )
        self._product: Any = sparse_linear if rank == 2 else functools.partial(sparse_conv, padding="SAME")

    def products(self, weight: Any) -> Act:
        """Outputs and both gradients."""
        import jax

        @jax.jit
        def compiled(weight: Any, x: Any, dy: Any) -> Any:
            y, pull_back = jax.vjp(self._product, weight, x)
            return y, pull_back(dy)

        return lambda: jax.block_until_ready(compiled(weight, self.x, self.dy))

    def kernels(self) -> Act:
        """The kernels of a matrix alone, on their own layout."""
        index, values, link = self.weight.topology.index(), np.asarray(self.weight.values), self.weight.link
        x, dy = (np.ascontiguousarray(np.asarray(array).T) for array in (self.x, self.dy))

        def act() -> None:
            link.kernels.forward(index, values, x, threads=link.threads)
            link.kernels.backward(index, values, x, dy, threads=link.threads)

        return act


def make(contender: str, baseline: str, layer: Mapping[str, Any]) -> tuple[Act, Act]:
    """What is measured, and what it is compared with.

    Args:
        contender: ``"jax active"``; or ``"jax convolution 256 128 3 14"``: inputs, outputs, the side of the kernel and
            that of the images.
        baseline: ``"jax dense"`` or, for a matrix, ``"jax kernels"``.
        layer: size, batch, density and threads.
    """
    _, kind, *numbers = contender.split()
    if kind == "convolution":
        inputs, outputs, kernel, side = map(int, numbers)
        shape: tuple[int, ...] = (kernel, kernel, inputs, outputs)
        samples: tuple[int, ...] = (layer["batch"], side, side)
    else:
        shape, samples = (layer["size"], layer["size"]), (layer["batch"],)
    own = Layer(shape, samples, layer["density"], layer["threads"])
    return own.products(own.weight), own.kernels() if baseline == "jax kernels" else own.products(own.matrix)
