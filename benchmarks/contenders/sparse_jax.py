"""The products of one layer in JAX, forward and backward: by `sparse_linear`, by its kernels alone, or dense."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Act = Callable[[], object]


class Layer:
    """A layer of as many outputs as inputs, its inputs and the gradient of its outputs, batch-major.

    Args:
        size: its inputs.
        batch: samples.
        density: the share of its connections that are active.
        threads: what the kernels and XLA work with.
    """

    def __init__(self, size: int, batch: int, density: float, threads: int) -> None:
        if threads == 1:  # before JAX starts
            os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        import jax.numpy as jnp
        import optax

        from rigl_backends.jax import apply_masks, sparsify
        from rigl_core import SparsityWarning, Static, Uniform

        random = np.random.default_rng(0)
        recipe = Static(1 - density, distribution=Uniform(first_dense=False))
        tx = sparsify(optax.sgd(0.1), recipe, axes={"fc": ((0,), (1,))}, storage={"fc": "active"})
        dense = {"fc": jnp.asarray(random.standard_normal((size, size), np.float32))}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SparsityWarning)
            self.weight = apply_masks(dense, tx.init(dense))["fc"]
        self.weight.link.threads = threads
        self.matrix = dense["fc"]
        self.x, self.dy = (jnp.asarray(random.standard_normal((batch, size), np.float32)) for _ in range(2))

    def products(self, weight: Any) -> Act:
        """Outputs and both gradients."""
        import jax

        from rigl_backends.jax import sparse_linear

        @jax.jit
        def compiled(weight: Any, x: Any, dy: Any) -> Any:
            y, pull_back = jax.vjp(sparse_linear, weight, x)
            return y, pull_back(dy)

        return lambda: jax.block_until_ready(compiled(weight, self.x, self.dy))

    def kernels(self) -> Act:
        """The kernels alone, on their own layout."""
        index, values, link = self.weight.topology.index(), np.asarray(self.weight.values), self.weight.link
        x, dy = (np.ascontiguousarray(np.asarray(array).T) for array in (self.x, self.dy))

        def act() -> None:
            link.kernels.forward(index, values, x, threads=link.threads)
            link.kernels.backward(index, values, x, dy, threads=link.threads)

        return act


def make(contender: str, baseline: str, layer: Mapping[str, Any]) -> tuple[Act, Act]:
    """What is measured, and what it is compared with."""
    own = Layer(**layer)
    acts = {
        "jax active": lambda: own.products(own.weight),
        "jax dense": lambda: own.products(own.matrix),
        "jax kernels": own.kernels,
    }
    return acts[contender](), acts[baseline]()
