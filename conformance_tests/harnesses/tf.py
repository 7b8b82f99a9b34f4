"""The TensorFlow backend under the conformance suite."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from conformance_tests.harnesses.active import active_where_possible, held
from conformance_tests.harnesses.tf_optimizers import make_optimizer
from rigl_backends.keras_common.state import state_of
from rigl_backends.tf import SparseDense, sparsify, tensorflow_namespace
from rigl_core import Layer, Recipe
from rigl_core.parts.structures import Unstructured
from rigl_core.testing.harness import Array, Harness, Mask, Setup
from rigl_core.testing.limits import NotOffered


class TensorFlowSession:
    def __init__(self, setup: Setup) -> None:
        self.dtype = setup.dtype
        storage = _active_dense(setup) if setup.mode == "active" else {}
        self.dense = {name: _dense_layer(name, setup.params[name]) for name in storage}
        self.params = {
            name: self.dense[name].kernel
            if name in storage
            else keras.Variable(_tensor(param, setup.dtype), name=name, dtype=setup.dtype)
            for name, param in setup.params.items()
        }
        inner = make_optimizer(setup)
        for gradients in setup.dense_steps:
            inner.apply([_tensor(gradients[name], setup.dtype) for name in self.params], list(self.params.values()))
        model: dict[str, Any] = {"model": _Model(self.params, self.dense), "storage": storage} if storage else {}
        self._turned = {layer.name for layer in setup.layers if layer.name in storage and layer.in_axes != (0,)}
        layers = [_inputs_first(layer) if layer.name in storage else layer for layer in setup.layers]
        given: dict[str, Any] = {"scores": setup.scores, "initial": setup.initial}
        self.optimizer = sparsify(inner, setup.recipe, layers=layers, **given, **model)
        self.dense = {name: layer for name, layer in self.dense.items() if isinstance(layer, SparseDense)}
        self.optimizer.build(list(self.params.values()))
        self._apply = _in_mode(lambda grads: self.optimizer.apply(grads, list(self.params.values())), setup.mode)
        self._learn = {
            model: _in_mode(functools.partial(self._descend, forward), setup.mode) for model, forward in _MODELS
        }

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        given = [None if g is None else self._given(name, g) for name, g in self._in_order(gradients)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist for variables")
            self._apply(given)

    def _in_order(self, gradients: Mapping[str, Array | None]) -> list[tuple[str, Array | None]]:
        return [(name, gradients.get(name)) for name in self.params]

    def _given(self, name: str, gradient: Array) -> tf.Tensor:
        """A gradient as the optimizer gets it; a layer of active weights gives it, with the identity as inputs."""
        if name not in self.dense:
            return _tensor(gradient, self.dtype)
        if not np.isfinite(gradient).all():
            raise NotOffered("the gradient of a layer of active weights is a sum of products, and these are finite")
        return self._gradient_of(name, [(np.eye(len(gradient), dtype=np.float32), gradient.astype(np.float32))])

    def _gradient_of(self, name: str, samples: Sequence[tuple[Array, Array]]) -> tf.Tensor:
        layer = self.dense[name]
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(layer.product(x) * tf.constant(dy)) for x, dy in samples])
        return tape.gradient(loss, layer.kernel)

    def step_samples(self, samples: Mapping[str, Sequence[tuple[Array, Array]]]) -> None:
        own = dict(samples)
        for name in own.keys() & self._turned:
            own[name] = [(dy, x) for x, dy in samples[name]]
        grads = [self._gradient_of(name, own[name]) if name in own else None for name in self.params]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist for variables")
            self._apply(grads)

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        if self.dense:
            raise NotOffered("the models of the suite are functions of dense weights")
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
        if self.dense:
            raise NotOffered("nothing shows that another optimizer has changed active weights alone")
        other = keras.optimizers.SGD(0.1)
        other.apply([_tensor(gradients[name], self.dtype) for name in self.params], list(self.params.values()))

    def weights(self) -> dict[str, Array]:
        own = {name: layer.dense() for name, layer in self.dense.items()}
        return {name: _array(param) for name, param in self.params.items()} | own

    def write(self, weights: Mapping[str, Array]) -> None:
        indices = {name: layer.index for name, layer in self.dense.items()}
        for name, weight in held(indices, weights).items():
            self.params[name].assign(_tensor(weight, self.dtype))

    def masks(self) -> dict[str, Mask]:
        return self.optimizer.masks

    def optimizer_state(self) -> dict[str, list[Array]]:
        state = state_of(self.optimizer.inner_optimizer, list(self.params.values()))
        return {
            name: [self._dense_state(name, _array(x)) for x in own]
            for name, own in zip(self.params, state, strict=True)
        }

    def _dense_state(self, name: str, values: Array) -> Array:
        """State in the layer's shape, with that of a new weight outside the mask."""
        if name not in self.dense:
            return values
        new = 0.1 if isinstance(self.optimizer.inner_optimizer, keras.optimizers.Adagrad) else 0
        layer = self.dense[name]
        return layer.index.dense(values, new).reshape(layer.link.shape)

    def steps(self) -> int:
        return self.optimizer.step

    def save(self) -> Any:
        store: dict[str, Array] = {}
        self.optimizer.save_own_variables(store)
        places = {name: [one.numpy() for one in layer.places] for name, layer in self.dense.items()}
        return {name: param.numpy() for name, param in self.params.items()}, places, store

    def load(self, saved: Any) -> None:
        params, places, store = saved
        for name, param in params.items():
            self.params[name].assign(param)
        for name, arrays in places.items():
            for variable, array in zip(self.dense[name].places, arrays, strict=True):
                variable.assign(array)
        self.optimizer.load_own_variables(store)


class _Model(keras.layers.Layer):  # type: ignore[misc]
    """A model with these variables, in their order, some of which Dense layers hold."""

    def __init__(self, params: Mapping[str, keras.Variable], dense: Mapping[str, keras.layers.Dense]) -> None:
        super().__init__()
        self.__dict__["params"] = dict(params)  # which Keras would take for its own
        self.dense, self.built = list(dense.values()), True

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        return list(self.params.values())


def _active_dense(setup: Setup) -> dict[str, Literal["active"]]:
    """The storage of each layer that a Dense layer can hold as active weights."""
    possible = active_where_possible(setup)
    if isinstance(setup.recipe, Recipe) and setup.recipe.ramp is not None:
        raise NotOffered("a ramp changes the number of active weights, and variables keep their shape")
    if isinstance(setup.recipe, Recipe) and not isinstance(setup.recipe.structure, Unstructured):
        raise NotOffered("a Dense layer is (inputs, outputs), and groups of connections depend on that")
    return possible


def _inputs_first(layer: Layer) -> Layer:
    """The layer as Dense layers are, (inputs, outputs). Counts and choices of single connections are the same."""
    return replace(layer, in_axes=(0,), out_axes=(1,))


def _dense_layer(name: str, kernel: Array) -> SparseDense:
    """A Dense layer, which becomes sparse, with this kernel under this name."""
    layer = keras.layers.Dense(kernel.shape[1], use_bias=False)
    layer.build((None, kernel.shape[0]))
    layer.kernel.assign(kernel)
    layer.kernel._path = name
    return layer


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


def _in_mode(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    if mode in ("eager", "active"):
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
    modes = ("eager", "function", "xla", "active")
    unused_layers = True
    slow_modes = ("eager", "active")  # each operation is a call of its own
    has = ("samples", "steps past", "adagrad", "dense steps", "micro-batches", "given masks")
    lacks: Mapping[str, str] = {
        "closures": "Keras's optimizers are given gradients, and evaluate nothing",
        "new arrays": "a variable takes new values, and stays the same variable",
    }
    xp = tensorflow_namespace
    session = TensorFlowSession
    to_backend = staticmethod(_tensor)
    to_numpy = staticmethod(_array)
    to_scalar = staticmethod(tf.constant)
    in_mode = staticmethod(_in_mode)
