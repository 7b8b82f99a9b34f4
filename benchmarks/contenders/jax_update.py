"""An update in JAX, in a jitted step that reuses its arguments' memory."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from contenders.recipes import always_moving, layers_of
from rigl_backends.jax import apply_masks, masks, sparsify
from subjects import Kernels


class Update:
    """See `contenders.protocol.Update`. With ``dense``, the step is the optimizer's alone.

    ``within`` is for a step that makes its gradients itself, as that of a training does, and so holds them in memory.
    """

    def __init__(self, kernels: Kernels, *, dense: bool = False, within: bool = False) -> None:
        self.traces = 0
        self._dense = dense
        self._gradients = {name: jnp.asarray(gradient) for name, gradient in kernels.gradients().items()}
        optimizer = optax.sgd(0.01, momentum=0.9 if kernels.momentum else None)
        if not dense:
            optimizer = sparsify(optimizer, always_moving(), layers=layers_of(kernels))
        self._params = {name: _weights(gradient) for name, gradient in self._gradients.items()}
        self._state = optimizer.init(self._params)
        if not dense:
            self._params = apply_masks(self._params, self._state)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            self.traces += 1
            gradients = _made_within(gradients) if within else gradients
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        self._step = step

    def prepare(self) -> None:
        weights = {name: _weights(gradient) for name, gradient in self._gradients.items()}
        self._params = jax.block_until_ready(weights if self._dense else apply_masks(weights, self._state))

    def move(self) -> None:
        self._params, self._state = jax.block_until_ready(self._step(self._params, self._state, self._gradients))

    def masks(self) -> Mapping[str, npt.NDArray[np.bool_]]:
        return {name: np.asarray(mask) for name, mask in masks(self._state, self._params).items()}

    def copies(self) -> object:
        return jax.block_until_ready([jnp.copy(gradient) for gradient in self._gradients.values()])


def _made_within(gradients: Any) -> Any:
    """The gradients, unchanged, from a loop that XLA cannot merge with the operations that follow."""
    return jax.lax.fori_loop(0, 2, lambda _, tree: jax.tree.map(jnp.negative, tree), gradients)


@jax.jit
def _weights(gradient: Any) -> Any:
    return jnp.flip(gradient.reshape(-1)).reshape(gradient.shape)  # as subjects.weights_like
