"""Two small networks with hand-written gradients, which every backend trains to the same masks (rule P1).

Both take inputs of 64 numbers and return 10 logits; the loss is the mean softmax cross-entropy. A harness
writes the same forward passes in its framework and lets the framework differentiate:

- ``"mlp"``: relu(x @ fc1.weight.T + fc1.bias) @ fc2.weight.T + fc2.bias
- ``"convnet"``: x as (batch, 1, 8, 8); relu of conv1 (3x3, stride 1, no padding, with bias); relu of conv2
  (3x3, stride 2, no padding, no bias); flattened in (channel, height, width) order; @ fc.weight.T + fc.bias.
  Kernels are (out, in, height, width).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rigl_core.model.layers import Layer
from rigl_core.testing.harness import Array

_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "mlp": {"fc1.weight": (24, 64), "fc1.bias": (24,), "fc2.weight": (10, 24), "fc2.bias": (10,)},
    "convnet": {
        "conv1.weight": (6, 1, 3, 3),
        "conv1.bias": (6,),
        "conv2.weight": (8, 6, 3, 3),
        "fc.weight": (10, 32),
        "fc.bias": (10,),
    },
}
MODELS = tuple(_SHAPES)


def make_params(model: str, seed: int) -> dict[str, Array]:
    """Random float64 parameters by name."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.3, shape) for name, shape in _SHAPES[model].items()}


def make_layers(model: str) -> tuple[Layer, ...]:
    """The model's layers: all weights, no biases."""
    shapes = _SHAPES[model].items()
    return tuple(Layer(name, shape, in_axes=(1,), out_axes=(0,)) for name, shape in shapes if name.endswith("weight"))


def make_batch(seed: int, step: int, size: int = 16) -> tuple[Array, Array]:
    """Inputs, float64 of shape (size, 64), and labels, int64 of shape (size,)."""
    rng = np.random.default_rng((seed, step))
    return rng.normal(size=(size, 64)), rng.integers(0, 10, size)


def gradients(model: str, params: Mapping[str, Array], inputs: Array, labels: Array) -> dict[str, Array]:
    """The dense gradient of the loss for each parameter, by name, from hand-written formulas."""
    return {"mlp": _mlp_gradients, "convnet": _convnet_gradients}[model](params, inputs, labels)


def _logits_gradient(logits: Array, labels: Array) -> Array:
    odds = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: Array = odds / odds.sum(1, keepdims=True)
    probabilities[np.arange(len(labels)), labels] -= 1
    return probabilities / len(labels)


def _mlp_gradients(params: Mapping[str, Array], inputs: Array, labels: Array) -> dict[str, Array]:
    hidden = np.maximum(inputs @ params["fc1.weight"].T + params["fc1.bias"], 0)
    out = _logits_gradient(hidden @ params["fc2.weight"].T + params["fc2.bias"], labels)
    back = (out @ params["fc2.weight"]) * (hidden > 0)
    return {
        "fc1.weight": back.T @ inputs,
        "fc1.bias": back.sum(0),
        "fc2.weight": out.T @ hidden,
        "fc2.bias": out.sum(0),
    }


def _convnet_gradients(params: Mapping[str, Array], inputs: Array, labels: Array) -> dict[str, Array]:
    image = inputs.reshape(-1, 1, 8, 8)
    windows1 = sliding_window_view(image, (3, 3), axis=(2, 3))
    hidden1 = np.einsum("bihwyx,oiyx->bohw", windows1, params["conv1.weight"]) + params["conv1.bias"][:, None, None]
    active1 = np.maximum(hidden1, 0)
    windows2 = sliding_window_view(active1, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    active2 = np.maximum(np.einsum("bihwyx,oiyx->bohw", windows2, params["conv2.weight"]), 0)
    flat = active2.reshape(len(inputs), -1)
    out = _logits_gradient(flat @ params["fc.weight"].T + params["fc.bias"], labels)
    back2 = (out @ params["fc.weight"]).reshape(active2.shape) * (active2 > 0)
    back1 = np.zeros_like(active1)
    for y, x in np.ndindex(3, 3):
        back1[:, :, y : y + 3 : 2, x : x + 3 : 2] += np.einsum(
            "bohw,oi->bihw", back2, params["conv2.weight"][:, :, y, x]
        )
    back1 *= hidden1 > 0
    return {
        "conv1.weight": np.einsum("bohw,bihwyx->oiyx", back1, windows1),
        "conv1.bias": back1.sum((0, 2, 3)),
        "conv2.weight": np.einsum("bohw,bihwyx->oiyx", back2, windows2),
        "fc.weight": out.T @ flat,
        "fc.bias": out.sum(0),
    }
