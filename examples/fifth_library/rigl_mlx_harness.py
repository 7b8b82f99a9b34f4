"""The MLX adapter under the conformance suite: how the suite's arrays become MLX's, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

import rigl_mlx_namespace
from rigl_core.testing import Array, Harness, Mask, MicroBatches, OptimizerSpec, Setup
from rigl_mlx import Tree, sparsify


class MLXSession:
    """A module that holds the suite's parameters, and the loop of an MLX user around it."""

    def __init__(self, setup: Setup) -> None:
        self.model, self.spec, self.dtype = _module(setup.params, setup.dtype), setup.optimizer, setup.dtype
        self.optimizer, self.micro_batches = _optimizer(setup.optimizer, setup.dtype), MicroBatches(setup.micro_batches)
        for gradients in setup.dense_steps:
            self.optimizer.update(self.model, _tree(gradients, setup.dtype))
        scores = None if setup.scores is None else {name: _mlx(x, setup.dtype) for name, x in setup.scores.items()}
        given = {"scores": scores, "initial": setup.initial}
        self.sparse = sparsify(self.model, self.optimizer, setup.recipe, layers=setup.layers, **given)
        self.gradient = {name: _in_mode(mx.grad(loss), setup.mode) for name, loss in _LOSSES.items()}

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        """With the gradients given; a parameter without one is missing from MLX's tree of gradients."""
        if (gradients := self.micro_batches.add(gradients)) is None:
            return
        given = {name: mx.zeros(()) if g is None else _mlx(g, self.dtype) for name, g in gradients.items()}
        tree = self.gradient["given"](self.model.trainable_parameters(), given)
        for name, gradient in gradients.items():
            if gradient is None:
                parent, _, own_name = name.rpartition(".")
                del tree[parent][own_name]
        self._descend(tree)

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        """With MLX's gradients of the suite's models."""
        arrays = _mlx(inputs, self.dtype), mx.array(labels)
        self._descend(self.gradient[model](self.model.trainable_parameters(), *arrays))

    def _descend(self, gradients: Tree) -> None:
        if self.spec.clip_norm is not None:
            gradients, _ = optim.clip_grad_norm(self.sparse.mask_gradients(gradients), self.spec.clip_norm)
        self.optimizer.update(self.model, gradients)
        mx.eval(self.model.parameters(), self.optimizer.state)

    def step_past(self, gradients: Mapping[str, Array]) -> None:
        """By another optimizer of MLX."""
        optim.SGD(0.1).update(self.model, _tree(gradients, self.dtype))

    def weights(self) -> dict[str, Array]:
        """All parameters."""
        return {name: _numpy(param) for name, param in tree_flatten(self.model.parameters())}

    def write(self, weights: Mapping[str, Array]) -> None:
        """Into the module."""
        self.model.update(_tree(weights, self.dtype))

    replace = write

    def masks(self) -> dict[str, Mask]:
        """The handle's."""
        return {name: np.array(mask) for name, mask in self.sparse.masks.items()}

    def optimizer_state(self) -> dict[str, list[Array]]:
        """Everything of a parameter's shape at its place in the optimizer's state."""
        state = tree_flatten(self.optimizer.state)
        return {
            name: [_numpy(x) for path, x in state if path.rpartition(".")[0] == name and x.shape == param.shape]
            for name, param in tree_flatten(self.model.parameters())
        }

    def steps(self) -> int:
        """The handle's."""
        return self.sparse.step

    def save(self) -> Any:
        """Flat dicts of immutable arrays, as `mx.save_safetensors` takes them, and the handle's state."""
        return (
            dict(tree_flatten(self.model.parameters())),
            dict(tree_flatten(self.optimizer.state)),
            self.sparse.state_dict(),
        )

    def load(self, saved: Any) -> None:
        """As a user loads a checkpoint."""
        params, state, sparse = saved
        self.model.update(tree_unflatten(params))
        self.optimizer.state = tree_unflatten(state)
        self.sparse.load_state_dict(sparse)

    def sparsify_again(self) -> None:
        """The handle's model and optimizer once more."""
        sparsify(self.model, self.optimizer, self.sparse.plan.recipe, layers=self.sparse.plan.layers)


def _given(params: Tree, gradients: Mapping[str, mx.array]) -> mx.array:
    """Its gradient with respect to each parameter is the one given, bit for bit."""
    return sum((param * gradients[name]).sum() for name, param in tree_flatten(params))


def _mlp(params: Tree, x: mx.array, labels: mx.array) -> mx.array:
    hidden = nn.relu(x @ params["fc1"]["weight"].T + params["fc1"]["bias"])
    return _cross_entropy(hidden @ params["fc2"]["weight"].T + params["fc2"]["bias"], labels)


def _convnet(params: Tree, x: mx.array, labels: mx.array) -> mx.array:
    hidden = nn.relu(_convolution(x.reshape(-1, 8, 8, 1), params["conv1"]["weight"]) + params["conv1"]["bias"])
    hidden = nn.relu(_convolution(hidden, params["conv2"]["weight"], stride=2))
    flat = hidden.transpose(0, 3, 1, 2).flatten(1)
    return _cross_entropy(flat @ params["fc"]["weight"].T + params["fc"]["bias"], labels)


def _convolution(x: mx.array, kernel: mx.array, stride: int = 1) -> mx.array:
    """Nine shifted products, (batch, height, width, channel): MLX's own convolution lacks float64."""
    span = (x.shape[1] - 3) // stride * stride + 1
    shifted = ((x[:, i : i + span : stride, j : j + span : stride], i, j) for i, j in np.ndindex(3, 3))
    return sum(part @ kernel[:, :, i, j].T for part, i, j in shifted)


def _cross_entropy(logits: mx.array, labels: mx.array) -> mx.array:
    """By powers of e: MLX's own exponential is of single precision, in float64 too."""
    labelled = mx.take_along_axis(logits, labels[:, None], 1)[:, 0]
    return (mx.log((math.e**logits).sum(1)) - labelled).mean()


_LOSSES = {"given": _given, "mlp": _mlp, "convnet": _convnet}


def _module(params: Mapping[str, Array], dtype: str) -> nn.Module:
    model = nn.Module()
    for parent, children in tree_unflatten({name: _mlx(param, dtype) for name, param in params.items()}).items():
        model[parent] = nn.Module()
        for name, child in children.items():
            model[parent][name] = child
    return model


class _CenteredSGD(optim.SGD):
    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict[str, Any]) -> mx.array:
        return super().apply_single(gradient - gradient.mean(), parameter, state)


def _optimizer(spec: OptimizerSpec, dtype: str) -> optim.Optimizer:
    if spec.kind == "sgd":
        make = _CenteredSGD if spec.centered else optim.SGD
        optimizer = make(spec.lr, spec.momentum, spec.weight_decay)
    else:
        optimizer = optim.AdamW(spec.lr, weight_decay=spec.weight_decay, bias_correction=True)
    if dtype == "float64":  # MLX computes learning rates and bias corrections in float32 otherwise
        optimizer.learning_rate = mx.array(spec.lr, mx.float64)
        optimizer.state["step"] = mx.array(0, mx.float64)
    return optimizer


def _in_mode(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    compiled: Callable[..., Any] = mx.compile(function)
    return compiled if mode == "compiled" else function


def _mlx(array: Array, dtype: str) -> mx.array:
    return mx.array(array, mx.bool_ if dtype == "bool" else getattr(mx, dtype))


def _tree(arrays: Mapping[str, Array], dtype: str) -> Tree:
    return tree_unflatten([(name, _mlx(array, dtype)) for name, array in arrays.items()])


def _numpy(array: mx.array) -> Array:
    return np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)


class MLXHarness(Harness):
    """MLX on the CPU: only there it has float64."""

    name = "mlx"
    dtypes = ("float16", "bfloat16", "float32", "float64")
    modes = ("eager", "compiled")
    unused_layers = True
    has = ("new arrays", "steps past", "dense steps", "micro-batches", "given masks")
    lacks: Mapping[str, str] = {
        "samples": "its layers have masks, and no products of their own",
        "adagrad": "in MLX all optimizer state starts at 0, also that of Adagrad",
        "closures": "MLX's optimizers are given gradients, and evaluate nothing",
    }
    xp = rigl_mlx_namespace
    session = MLXSession
    to_backend = staticmethod(_mlx)
    to_numpy = staticmethod(_numpy)
    in_mode = staticmethod(_in_mode)
