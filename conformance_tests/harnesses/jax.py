"""The JAX backend under the conformance suite."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from rigl_backends.jax import apply_masks, jax_namespace, masks, resume, sparsify, step
from rigl_backends.jax.handle import find_state
from rigl_backends.jax.state import state_of
from rigl_core.testing.harness import Array, Harness, Mask, OptimizerSpec, Setup

Params = dict[str, jax.Array]


class JaxSession:
    def __init__(self, settings: Callable[[str], AbstractContextManager[None]], setup: Setup) -> None:
        self.setup, self.settings, self.dtype = setup, functools.partial(settings, setup.dtype), setup.dtype
        self.tx = sparsify(
            _make(setup.optimizer, setup.micro_batches),
            setup.recipe,
            layers=setup.layers,
            scores=setup.scores,
            callbacks=setup.mode != "graph",
        )
        with self.settings():
            dense = {name: _to(param, setup.dtype) for name, param in setup.params.items()}
            self.opt_state = self.tx.init(dense)
            self.params: Params = apply_masks(dense, self.opt_state)
        self._descend = _in_mode(self._gradient_step, setup.mode, donate=(0, 1))
        self._learn = {
            model: _in_mode(functools.partial(self._model_step, model), setup.mode, donate=(0, 1)) for model in _MODELS
        }

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        with self.settings():
            given = {name: _to(g, self.dtype) for name, g in gradients.items() if g is not None}
            self.params, self.opt_state = self._descend(self.params, self.opt_state, given)

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        with self.settings():
            batch = _to(inputs, self.dtype), jnp.asarray(labels)
            self.params, self.opt_state = self._learn[model](self.params, self.opt_state, *batch)

    def step_past(self, gradients: Mapping[str, Array]) -> None:
        with self.settings():
            other = optax.sgd(0.1)
            given = {name: _to(g, self.dtype) for name, g in gradients.items()}
            updates, _ = other.update(given, other.init(self.params))
            self.params = optax.apply_updates(self.params, updates)

    def weights(self) -> dict[str, Array]:
        return {name: _array(param) for name, param in self.params.items()}

    def write(self, weights: Mapping[str, Array]) -> None:
        with self.settings():
            self.params = {name: _to(weight, self.dtype) for name, weight in weights.items()}

    def masks(self) -> dict[str, Mask]:
        return {name: np.asarray(mask) for name, mask in masks(self.opt_state, self.params).items()}

    def optimizer_state(self) -> dict[str, list[Array]]:
        state = state_of(find_state(self.opt_state).inner_state, self.params)
        return {name: [_array(array) for array in arrays] for name, arrays in state.items()}

    def steps(self) -> int:
        return int(step(self.opt_state))

    def save(self) -> Any:
        return jax.tree.map(np.array, (self.params, self.opt_state))

    def load(self, saved: Any) -> None:
        with self.settings():
            params, opt_state = jax.tree.map(jnp.array, saved)
            self.params, self.opt_state = params, resume(self.tx, opt_state, params)

    def sparsify_again(self) -> None:
        sparsify(self.tx, self.setup.recipe, layers=self.setup.layers).init(self.params)

    def _gradient_step(self, params: Params, opt_state: Any, gradients: Params) -> tuple[Params, Any]:
        updates, opt_state = self.tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def _model_step(
        self, model: str, params: Params, opt_state: Any, inputs: jax.Array, labels: jax.Array
    ) -> tuple[Params, Any]:
        def loss(params: Params) -> jax.Array:
            logits = _MODELS[model](params, inputs)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return self._gradient_step(params, opt_state, jax.grad(loss)(params))


def _mlp(params: Params, x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ params["fc1.weight"].T + params["fc1.bias"])
    return hidden @ params["fc2.weight"].T + params["fc2.bias"]


def _convnet(params: Params, x: jax.Array) -> jax.Array:
    image = x.reshape(-1, 1, 8, 8)
    hidden = lax.conv(image, params["conv1.weight"], (1, 1), "VALID") + params["conv1.bias"][:, None, None]
    hidden = lax.conv(jax.nn.relu(hidden), params["conv2.weight"], (2, 2), "VALID")
    return jax.nn.relu(hidden).reshape(len(x), -1) @ params["fc.weight"].T + params["fc.bias"]


_MODELS: dict[str, Callable[[Params, jax.Array], jax.Array]] = {"mlp": _mlp, "convnet": _convnet}


def _make(spec: OptimizerSpec, micro_batches: int) -> optax.GradientTransformation | optax.MultiSteps:
    parts = []
    if spec.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(spec.clip_norm))
    if spec.kind == "adam":
        parts.append(optax.adamw(spec.lr, weight_decay=spec.weight_decay))
    elif spec.kind == "adagrad":
        parts.append(optax.adagrad(spec.lr, initial_accumulator_value=0.1))
    else:
        if spec.centered:
            parts.append(optax.stateless(lambda updates, params: jax.tree.map(lambda g: g - g.mean(), updates)))
        parts += [optax.add_decayed_weights(spec.weight_decay), optax.sgd(spec.lr, spec.momentum or None)]
    whole = optax.chain(*parts)
    return whole if micro_batches == 1 else optax.MultiSteps(whole, micro_batches)


def _in_mode(function: Callable[..., Any], mode: str, donate: tuple[int, ...] = ()) -> Callable[..., Any]:
    return function if mode == "eager" else jax.jit(function, donate_argnums=donate)


@contextmanager
def _settings(device: str, dtype: str) -> Iterator[None]:
    """Set JAX up for a dtype: it makes float64 arrays only if asked."""
    with jax.default_device(jax.devices(device)[0]), jax.enable_x64(dtype == "float64"):
        yield


def _to(array: Array, dtype: str) -> jax.Array:
    return jnp.array(array, jnp.dtype(dtype))


def _array(array: jax.Array) -> Array:
    return np.array(array, np.float32) if array.dtype == jnp.bfloat16 else np.array(array)


class JaxHarness(Harness):
    name = "jax"
    dtypes = ("float16", "bfloat16", "float32", "float64")
    modes = ("eager", "compiled", "graph")  # the last without callbacks, as on a GPU
    unused_layers = False
    slow_modes = ("eager",)  # where every operation is compiled anew for each shape
    has = ("steps past", "adagrad", "micro-batches")
    lacks: Mapping[str, str] = {
        "samples": "its layers have masks, and no products of their own",
        "dense steps": "init makes all optimizer state anew, and there is no other way to start",
        "closures": "optax is given gradients; what evaluates the loss, such as its sam, goes around sparsify",
        "new arrays": "JAX's arrays never change: every step takes and gives new ones",
    }
    xp = jax_namespace
    to_backend = staticmethod(_to)
    to_numpy = staticmethod(_array)
    to_scalar = staticmethod(np.int32)
    in_mode = staticmethod(_in_mode)

    def __init__(self, device: str = "cpu") -> None:
        self.settings = functools.partial(_settings, device)
        self.session = functools.partial(JaxSession, self.settings)
