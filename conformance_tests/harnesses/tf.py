"""The TensorFlow backend under the conformance suite."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rigl_backends.tf import sparsify, tensorflow_namespace
from rigl_backends.tf.state import state_of
from rigl_core.testing.harness import Array, Harness, Mask, OptimizerSpec, Setup


class TensorFlowSession:
    def __init__(self, setup: Setup) -> None:
        self.dtype = setup.dtype
        self.params = {
            name: keras.Variable(_tensor(param, setup.dtype), name=name, dtype=setup.dtype)
            for name, param in setup.params.items()
        }
        inner = _make(setup)
        for gradients in setup.dense_steps:
            inner.apply([_tensor(gradients[name], setup.dtype) for name in self.params], list(self.params.values()))
        self.optimizer = sparsify(inner, setup.recipe, layers=setup.layers, scores=setup.scores)
        self.optimizer.build(list(self.params.values()))
        self._apply = _in_mode(lambda grads: self.optimizer.apply(grads, list(self.params.values())), setup.mode)
        self._learn = {
            model: _in_mode(functools.partial(self._descend, forward), setup.mode) for model, forward in _MODELS
        }

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        given = [gradients.get(name) for name in self.params]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist for variables")
            self._apply([None if g is None else _tensor(g, self.dtype) for g in given])

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        self._learn[model](tf.constant(inputs), tf.constant(labels))

    def sparsify_again(self) -> None:
        sparsify(self.optimizer, self.optimizer.recipe, layers=self.optimizer.plan.layers)

    def _descend(self, forward: Callable[..., tf.Tensor], inputs: tf.Tensor, labels: tf.Tensor) -> None:
        params = list(self.params.values())
        with tf.GradientTape() as tape:
            logits = forward({name: tf.convert_to_tensor(param) for name, param in self.params.items()}, inputs)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        self.optimizer.apply(tape.gradient(loss, params), params)

    def step_past(self, gradients: Mapping[str, Array]) -> None:
        other = keras.optimizers.SGD(0.1)
        other.apply([_tensor(gradients[name], self.dtype) for name in self.params], list(self.params.values()))

    def weights(self) -> dict[str, Array]:
        return {name: _array(param) for name, param in self.params.items()}

    def write(self, weights: Mapping[str, Array]) -> None:
        for name, weight in weights.items():
            self.params[name].assign(_tensor(weight, self.dtype))

    def masks(self) -> dict[str, Mask]:
        return self.optimizer.masks

    def optimizer_state(self) -> dict[str, list[Array]]:
        state = state_of(self.optimizer.inner_optimizer, list(self.params.values()))
        return {name: [_array(x) for x in own] for name, own in zip(self.params, state, strict=True)}

    def steps(self) -> int:
        return self.optimizer.step

    def save(self) -> Any:
        store: dict[str, Array] = {}
        self.optimizer.save_own_variables(store)
        return {name: param.numpy() for name, param in self.params.items()}, store

    def load(self, saved: Any) -> None:
        params, store = saved
        for name, param in params.items():
            self.params[name].assign(param)
        self.optimizer.load_own_variables(store)


def _mlp(params: Mapping[str, tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    hidden = tf.nn.relu(tf.matmul(x, params["fc1.weight"], transpose_b=True) + params["fc1.bias"])
    return tf.matmul(hidden, params["fc2.weight"], transpose_b=True) + params["fc2.bias"]


def _convnet(params: Mapping[str, tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    # TensorFlow's layout is (batch, height, width, channel), its kernels' (height, width, in, out).
    conv1, conv2 = (tf.transpose(params[name], (2, 3, 1, 0)) for name in ("conv1.weight", "conv2.weight"))
    hidden = tf.nn.relu(tf.nn.conv2d(tf.reshape(x, (-1, 8, 8, 1)), conv1, 1, "VALID") + params["conv1.bias"])
    hidden = tf.nn.relu(tf.nn.conv2d(hidden, conv2, 2, "VALID"))
    flat = tf.reshape(tf.transpose(hidden, (0, 3, 1, 2)), (tf.shape(x)[0], -1))
    return tf.matmul(flat, params["fc.weight"], transpose_b=True) + params["fc.bias"]


_MODELS = (("mlp", _mlp), ("convnet", _convnet))


class SGD(keras.optimizers.SGD):  # type: ignore[misc]
    """With PyTorch's weight decay, which Keras leaves to the loss, and gradient centralization."""

    def __init__(self, spec: OptimizerSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": self.spec}

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        gradient = gradient - tf.reduce_mean(gradient) if self.spec.centered else gradient
        super().update_step(gradient + self.spec.weight_decay * variable, variable, learning_rate)


class Adam(keras.optimizers.AdamW):  # type: ignore[misc]
    """With PyTorch's epsilon, which Keras adds before it corrects the bias."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        correction = 1 - self.beta_2 ** tf.cast(self.iterations + 1, variable.dtype)
        self.epsilon = 1e-8 * tf.sqrt(correction)
        super().update_step(gradient, variable, learning_rate)


def _make(setup: Setup) -> keras.optimizers.Optimizer:
    spec, calls = setup.optimizer, setup.micro_batches
    # Keras takes Python's numbers for float32, and NumPy's for what they are.
    beta_1, beta_2, momentum = np.float64(0.9), np.float64(0.999), np.float64(spec.momentum)
    common = {"learning_rate": lambda: tf.constant(spec.lr, tf.float64), "global_clipnorm": spec.clip_norm}
    common["gradient_accumulation_steps"] = calls if calls > 1 else None
    if spec.kind == "sgd":
        return SGD(spec, momentum=momentum, **common)
    if spec.kind == "adagrad":
        return keras.optimizers.Adagrad(initial_accumulator_value=0.1, **common)
    return Adam(weight_decay=np.float64(spec.weight_decay), beta_1=beta_1, beta_2=beta_2, **common)


def _in_mode(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    if mode == "eager":
        return function
    compiled: Callable[..., Any] = tf.function(function, jit_compile=mode == "xla", reduce_retracing=True)
    return compiled


def _tensor(array: Array, dtype: str) -> tf.Tensor:
    return tf.cast(tf.constant(array), dtype)


def _array(values: Any) -> Array:
    values = tf.convert_to_tensor(values)
    return np.array(tf.cast(values, tf.float32) if values.dtype == tf.bfloat16 else values)


class TensorFlowHarness(Harness):
    name = "tf"
    dtypes = ("float16", "bfloat16", "float32", "float64")
    modes = ("eager", "function", "xla")
    unused_layers = True
    slow_modes = ("eager",)  # each operation is a call of its own
    has = ("steps past", "adagrad", "dense steps", "micro-batches")
    lacks: Mapping[str, str] = {
        "samples": "its layers have masks, and no products of their own",
        "closures": "Keras's optimizers are given gradients, and evaluate nothing",
        "new arrays": "a variable takes new values, and stays the same variable",
    }
    xp = tensorflow_namespace
    session = TensorFlowSession
    to_backend = staticmethod(_tensor)
    to_numpy = staticmethod(_array)
    to_scalar = staticmethod(tf.constant)
    in_mode = staticmethod(_in_mode)
