"""Steps in JAX: flax models, optax, one jitted step that reuses its arguments' memory."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from contenders.protocol import Train
from contenders.recipes import moving_later
from rigl_backends.jax import apply_masks, sparsify
from rigl_core import Recipe

INPUTS = {"mlp": (128, 784), "convnet": (64, 32, 32, 3), "gru": (32, 32, 64), "transformer": (16, 64, 128)}


class Model(nn.Module):
    """The models of `contenders.torch_models`."""

    kind: str

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Logits, (batch, classes)."""
        if self.kind == "mlp":
            for _ in range(2):
                x = nn.relu(nn.Dense(1024)(x))
        elif self.kind == "convnet":
            for width, stride in ((32, 1), (64, 2), (128, 2)):
                x = nn.relu(nn.Conv(width, (3, 3), stride)(x))
            x = x.reshape(len(x), -1)
        elif self.kind == "gru":
            x = nn.RNN(nn.GRUCell(256))(x)[:, -1]
        else:
            for _ in range(2):
                x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
                x = x + nn.Dense(128)(nn.relu(nn.Dense(512)(nn.LayerNorm()(x))))
            x = x.mean(1)
        return nn.Dense(10)(x)


class JaxSteps:
    """See `contenders.protocol.Steps`."""

    def __init__(self, model: str, optimizer: str) -> None:
        self.dense = train(model, optimizer, None)
        self.sparse = train(model, optimizer, moving_later())


make = JaxSteps


def train(model: str, optimizer: str, recipe: Recipe | None, device: str = "cpu") -> Train:
    """See `contenders.protocol.Train`."""
    jax.config.update("jax_default_device", jax.devices(device)[0])
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal(INPUTS[model], dtype=np.float32)
    labels = rng.integers(10, size=len(inputs))
    network = Model(model)
    params = network.init(jax.random.key(0), inputs)
    tx: Any = optax.sgd(1e-3, momentum=0.9) if optimizer == "momentum" else optax.adam(1e-4)
    if recipe is not None:
        tx = sparsify(tx, recipe)
    state = tx.init(params)
    if recipe is not None:
        params = apply_masks(params, state)

    def loss_of(params: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(network.apply(params, inputs), labels).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def descend(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(loss_of)(params), state, params)
        return optax.apply_updates(params, updates), state

    def take(*, wait: bool = True) -> None:
        nonlocal params, state
        params, state = descend(params, state)
        if wait:
            jax.block_until_ready((params, state))

    return take


def device_name(device: str) -> str:
    """The name of a device; a missing one is an error."""
    return str(jax.devices(device)[0].device_kind)


def peak_bytes(device: str) -> int | None:
    """The most memory that this process held on a device at a time; None where JAX does not count it."""
    return (jax.devices(device)[0].memory_stats() or {}).get("peak_bytes_in_use")
