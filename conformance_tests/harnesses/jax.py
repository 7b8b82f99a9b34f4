"""The JAX backend under the conformance suite."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from conformance_tests.harnesses.active import active_where_possible, held
from conformance_tests.harnesses.jax_products import as_sample, product
from rigl_backends.jax import (
    apply_masks,
    dense,
    jax_namespace,
    masks,
    resume,
    sparse_conv,
    sparse_linear,
    sparsify,
    step,
)
from rigl_backends.jax.active_trees import active_weights, with_values
from rigl_backends.jax.handle import find_state
from rigl_backends.jax.state import state_of
from rigl_backends.jax.storage import check_storage
from rigl_core import Recipe
from rigl_core.testing.harness import Array, Harness, Mask, OptimizerSpec, Setup
from rigl_core.testing.limits import NotOffered

Params = dict[str, Any]
Samples = Mapping[str, Sequence[tuple[jax.Array, jax.Array]]]


class JaxSession:
    def __init__(self, settings: Callable[[str], AbstractContextManager[None]], setup: Setup) -> None:
        self.setup, self.settings, self.dtype = setup, functools.partial(settings, setup.dtype), setup.dtype
        self.tx = sparsify(
            _make(setup.optimizer, setup.micro_batches),
            setup.recipe,
            layers=setup.layers,
            scores=setup.scores,
            initial=setup.initial,
            callbacks=setup.mode != "graph",
            storage=_active(setup) if setup.mode == "active" else "masks",
        )
        with self.settings():
            own = {name: _to(param, setup.dtype) for name, param in setup.params.items()}
            self.opt_state = self.tx.init(own)
            self.params: Params = apply_masks(own, self.opt_state)
        self._descend = _in_mode(self._samples_step, setup.mode, donate=(0, 1))
        self._learn = {
            model: _in_mode(functools.partial(self._model_step, model), setup.mode, donate=(0, 1)) for model in _MODELS
        }

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        with self.settings():
            given = {name: _to(g, self.dtype) for name, g in gradients.items() if g is not None}
            samples = {
                name: [as_sample(self.params[name].layout, g)] for name, g in given.items() if self._multiplies(name, g)
            }
            others = {name: g for name, g in given.items() if name not in samples}
            self.params, self.opt_state = self._descend(self.params, self.opt_state, samples, others)

    def _multiplies(self, name: str, gradient: jax.Array) -> bool:
        """Whether products give a gradient: of active weights, if it is finite."""
        return name in active_weights(self.params) and bool(jnp.isfinite(gradient).all())

    def step_samples(self, samples: Mapping[str, Sequence[tuple[Array, Array]]]) -> None:
        others = {name: jnp.zeros_like(param) for name, param in dense(self.params).items() if name not in samples}
        own = jax.tree.map(jnp.asarray, dict(samples))
        self.params, self.opt_state = self._descend(self.params, self.opt_state, own, others)

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        with self.settings():
            batch = _to(inputs, self.dtype), jnp.asarray(labels)
            self.params, self.opt_state = self._learn[model](self.params, self.opt_state, *batch)

    def step_past(self, gradients: Mapping[str, Array]) -> None:
        if active_weights(self.params):
            raise NotOffered("nothing shows that another optimizer has changed active weights alone")
        with self.settings():
            other = optax.sgd(0.1)
            given = {name: _to(g, self.dtype) for name, g in gradients.items()}
            updates, _ = other.update(given, other.init(self.params))
            self.params = optax.apply_updates(self.params, updates)

    def weights(self) -> dict[str, Array]:
        return {name: _array(param) for name, param in dense(self.params).items()}

    def write(self, weights: Mapping[str, Array]) -> None:
        active = active_weights(self.params)
        own = held({name: weight.topology.index() for name, weight in active.items()}, weights)
        with self.settings():
            self.params = {name: _to(weight, self.dtype) for name, weight in own.items()} | {
                name: weight.topology.weight(_to(own[name], self.dtype)) for name, weight in active.items()
            }

    def masks(self) -> dict[str, Mask]:
        return {name: np.asarray(mask) for name, mask in masks(self.opt_state, self.params).items()}

    def optimizer_state(self) -> dict[str, list[Array]]:
        state = state_of(find_state(self.opt_state).inner_state, with_values(self.params))
        return {name: [self._whole(name, _array(array)) for array in arrays] for name, arrays in state.items()}

    def _whole(self, name: str, array: Array) -> Array:
        """What the optimizer holds for a parameter, of the parameter's shape."""
        weight, outside = self.params[name], 0.1 if self.setup.optimizer.kind == "adagrad" else 0
        if name not in active_weights(self.params):
            return array
        return weight.topology.index().dense(array, outside).reshape(weight.layout.shape)

    def steps(self) -> int:
        return int(step(self.opt_state))

    def save(self) -> Any:
        return jax.tree.map(np.array, (self.params, self.opt_state))

    def load(self, saved: Any) -> None:
        with self.settings():
            params, opt_state = jax.tree.map(jnp.array, saved)
            self.params, self.opt_state = params, resume(self.tx, opt_state, params)

    def sparsify_again(self) -> None:
        sparsify(self.tx, self.setup.recipe, layers=self.setup.layers).init(dense(self.params))

    def _gradient_step(self, params: Params, opt_state: Any, gradients: Params) -> tuple[Params, Any]:
        updates, opt_state = self.tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def _samples_step(self, params: Params, opt_state: Any, samples: Samples, others: Params) -> tuple[Params, Any]:
        """A step whose gradients are those of products, and others that are given."""
        groups = {layer.name: layer.groups for layer in self.setup.layers}

        def loss(weights: Params) -> jax.Array:
            products = [
                (product(weights[name], x, groups[name]) * dy).sum()
                for name, pairs in samples.items()
                for x, dy in pairs
            ]
            return sum(products, jnp.zeros(()))

        own = jax.grad(loss)({name: params[name] for name in samples}) if samples else {}
        return self._gradient_step(params, opt_state, {**others, **own})

    def _model_step(
        self, model: str, params: Params, opt_state: Any, inputs: jax.Array, labels: jax.Array
    ) -> tuple[Params, Any]:
        def loss(params: Params) -> jax.Array:
            logits = _MODELS[model](params, inputs)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return self._gradient_step(params, opt_state, jax.grad(loss)(params))


def _mlp(params: Params, x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(_linear(params["fc1.weight"], x) + params["fc1.bias"])
    return _linear(params["fc2.weight"], hidden) + params["fc2.bias"]


def _convnet(params: Params, x: jax.Array) -> jax.Array:
    image = x.reshape(-1, 1, 8, 8)
    hidden = _conv(params["conv1.weight"], image) + params["conv1.bias"][:, None, None]
    hidden = _conv(params["conv2.weight"], jax.nn.relu(hidden), stride=2)
    return _linear(params["fc.weight"], jax.nn.relu(hidden).reshape(len(x), -1)) + params["fc.bias"]


_linear = functools.partial(sparse_linear, inputs_first=False)
_conv = functools.partial(sparse_conv, padding="VALID", inputs_first=False, channels_last=False)


def _active(setup: Setup) -> dict[str, Literal["active"]]:
    storage = active_where_possible(setup, convolutions=True)
    if isinstance(setup.recipe, Recipe):
        try:
            check_storage(setup.recipe, storage, callbacks=True)
        except ValueError as error:
            raise NotOffered(str(error)) from error
    return storage


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
    modes = ("eager", "compiled", "graph", "active")  # "graph" without callbacks, as on a GPU; "active" is compiled
    unused_layers = False
    slow_modes = ("eager", "active")  # where much is compiled anew for each shape, or each training
    has = ("samples", "steps past", "adagrad", "micro-batches", "given masks")
    lacks: Mapping[str, str] = {
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
