"""The Python array API standard under the conformance suite: what any library that follows it could run.

array-api-strict has the standard's functions and no others. Here it also refuses boolean indexing and shapes that
depend on data, as compilers do, and keeps the arrays on a device that NumPy cannot read and where none are made by
default. So nothing but the standard can pass, neither in the core nor in this smallest of adapters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

import array_api_strict as xp
import numpy as np

from rigl_core import Connections, Layer, Namespace, errors, make_plan, random_key, survivors
from rigl_core.checkpoint import check_state, make_state
from rigl_core.clock import Clock
from rigl_core.random import INITIAL
from rigl_core.testing import models
from rigl_core.testing.harness import Array, Harness, Mask, OptimizerSpec, Setup

P = ParamSpec("P")
Result = TypeVar("Result")
StandardArray = Any  # the standard gives its arrays no type
Arrays = dict[str, StandardArray]

CPU, ELSEWHERE = xp.Device("CPU_DEVICE"), xp.Device("device1")


class ArrayAPINamespace:
    """See `rigl_core.namespace.Namespace`; counts may be arrays too, which are never read on the host."""

    abs = staticmethod(xp.abs)
    where = staticmethod(xp.where)
    zeros_like = staticmethod(xp.zeros_like)
    full_like = staticmethod(xp.full_like)
    shift_right = staticmethod(xp.bitwise_right_shift)

    @staticmethod
    def count(mask: StandardArray, /) -> StandardArray:
        return xp.sum(xp.astype(mask, xp.int32), dtype=xp.int32)

    @staticmethod
    def cumulative_count(mask: StandardArray, /) -> StandardArray:
        return xp.cumulative_sum(xp.astype(mask, xp.int32), dtype=xp.int32)

    @staticmethod
    def smallest_normal(x: StandardArray, /) -> float:
        return xp.finfo(x.dtype).smallest_normal

    @staticmethod
    def kth_largest(scores: StandardArray, k: StandardArray | int, /) -> StandardArray:
        if scores.size == 0:
            return xp.zeros((), dtype=scores.dtype, device=scores.device)
        position = xp.maximum(xp.asarray(k, dtype=xp.int32, device=scores.device), 1) - 1
        descending = xp.sort(scores, descending=True)
        return xp.reshape(xp.take(descending, xp.reshape(position, (1,))), ())


array_api_namespace: Namespace = ArrayAPINamespace()
_survivors = functools.partial(survivors, xp=array_api_namespace)


def _settings(dtype: str = "") -> AbstractContextManager[None]:
    return xp.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False)


def _strictly(function: Callable[P, Result]) -> Callable[P, Result]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        with _settings():
            return function(*args, **kwargs)

    return run


class ArrayAPISession:
    """A sparse training of a dict of arrays that are replaced and never written to: the adapter and its user."""

    @_strictly
    def __init__(self, setup: Setup) -> None:
        self.plan, self.spec, self.dtype = make_plan(setup.recipe, setup.layers), setup.optimizer, setup.dtype
        for layer in self.plan.layers:
            errors.check_dtype(layer, setup.dtype)
        self.clock = Clock(setup.recipe.schedule)
        self.params = {name: _to(param, setup.dtype) for name, param in setup.params.items()}
        states = _STATES[setup.optimizer.kind]
        self.state = {name: [xp.zeros_like(param)] * states for name, param in self.params.items()}
        self.gradient_steps = dict.fromkeys(setup.params, 0)
        self.topology: Arrays = {}
        for layer, active in zip(self.plan.layers, self.plan.active, strict=True):
            mask = setup.recipe.initial_mask(self._connections(layer, INITIAL), active, xp=array_api_namespace)
            self._move_to(layer, mask, mask)

    @_strictly
    def step(self, gradients: Mapping[str, Array | None]) -> None:
        dense = {name: _to(gradient, self.dtype) for name, gradient in gradients.items() if gradient is not None}
        recipe, update = self.plan.recipe, self.clock.due
        if update is not None and recipe.reads_gradient and not _all_finite(dense):
            self.clock.defer()
            update = None
        if update is None or recipe.on_update == "after":
            self._descend(dense)
        if update is not None:
            for position in self.plan.sparse_layers:
                self._move(position, update, dense)
        self.clock.advance(updated=update is not None)

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        self.step(models.gradients(model, self.weights(), inputs, labels))  # the standard does not differentiate

    def weights(self) -> dict[str, Array]:
        return {name: _array(param) for name, param in self.params.items()}

    def masks(self) -> dict[str, Mask]:
        return {name: _array(mask) for name, mask in self.topology.items()}

    def optimizer_state(self) -> dict[str, list[Array]]:
        return {name: [_array(values) for values in state] for name, state in self.state.items()}

    def steps(self) -> int:
        return self.clock.step

    def save(self) -> Any:
        optimizer = dict(self.state), dict(self.gradient_steps)
        return dict(self.params), *optimizer, make_state(self.plan, self.clock, self.masks())

    def load(self, saved: Any) -> None:
        params, state, gradient_steps, sparse = saved
        check_state(self.plan, sparse)
        self.params, self.state, self.gradient_steps = dict(params), dict(state), dict(gradient_steps)
        self.clock.step, self.clock.deferred = sparse["step"], sparse["deferred"]
        self.topology = {name: _to(mask, "bool") for name, mask in sparse["masks"].items()}

    def sparsify_again(self) -> None:
        raise errors.already_sparsified("optimizer")  # here making a session is sparsifying

    def _descend(self, dense: Arrays) -> None:
        masked = {name: _survivors(dense[name], mask, mask) for name, mask in self.topology.items() if name in dense}
        for name, gradient in _clipped(dense | masked, self.spec.clip_norm).items():
            self.gradient_steps[name] += 1
            self.params[name], *self.state[name] = _OPTIMIZERS[self.spec.kind](
                self.spec, self.gradient_steps[name], gradient, self.params[name], *self.state[name]
            )
        for name, mask in self.topology.items():
            self.params[name] = _survivors(self.params[name], mask, mask)

    def _move(self, position: int, update: int, dense: Arrays) -> None:
        """One layer's topology update; a layer that was not used, and so has no gradient, keeps its own."""
        layer, recipe = self.plan.layers[position], self.plan.recipe
        if layer.name not in dense and recipe.reads_gradient:
            return
        drop_count = int(self.plan.drop_counts[update, position])
        connections = self._connections(layer, update, dense.get(layer.name))
        old = xp.reshape(self.topology[layer.name], (-1,))
        keep = self.plan.active[position] - drop_count
        new = recipe.updated_mask(connections, old, keep, drop_count, xp=array_api_namespace)
        self._move_to(layer, old, new)

    def _move_to(self, layer: Layer, old: StandardArray, new: StandardArray) -> None:
        """Give a layer its new mask, and leave weights and per-weight optimizer state with what survives."""
        name, old, new = layer.name, xp.reshape(old, layer.shape), xp.reshape(new, layer.shape)
        self.topology[name] = new
        self.params[name] = _survivors(self.params[name], old, new)
        self.state[name] = [_survivors(values, old, new) for values in self.state[name]]

    def _connections(self, layer: Layer, update: int, gradient: StandardArray | None = None) -> Connections:
        return Connections(
            weight=xp.reshape(self.params[layer.name], (-1,)),
            gradient=None if gradient is None else xp.reshape(gradient, (-1,)),
            indices=xp.arange(layer.size, dtype=xp.int32, device=ELSEWHERE),
            random_key=random_key(self.plan.recipe.seed, layer.name, update),
        )


def _all_finite(arrays: Arrays) -> bool:
    return all(bool(xp.all(xp.isfinite(array))) for array in arrays.values())


def _clipped(gradients: Arrays, clip_norm: float | None) -> Arrays:
    if clip_norm is None:
        return gradients
    everything = xp.concat([xp.reshape(gradient, (-1,)) for gradient in gradients.values()])
    norm = xp.sqrt(xp.sum(everything * everything))
    return {name: gradient * (clip_norm / xp.maximum(norm, clip_norm)) for name, gradient in gradients.items()}


def _sgd(spec: OptimizerSpec, step: int, gradient: Any, param: Any, momentum: Any) -> tuple[StandardArray, ...]:
    gradient = gradient - xp.mean(gradient) if spec.centered else gradient
    momentum = spec.momentum * momentum + gradient + spec.weight_decay * param
    return param - spec.lr * momentum, momentum


def _adam(
    spec: OptimizerSpec, step: int, gradient: Any, param: Any, mean: Any, square: Any
) -> tuple[StandardArray, ...]:
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.999 * square + 0.001 * gradient * gradient
    direction = mean / (1 - 0.9**step) / (xp.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return param * (1 - spec.lr * spec.weight_decay) - spec.lr * direction, mean, square


_OPTIMIZERS: dict[str, Callable[..., tuple[StandardArray, ...]]] = {"sgd": _sgd, "adam": _adam}
_STATES = {"sgd": 1, "adam": 2}


def _to(array: Array, dtype: str) -> StandardArray:
    return xp.asarray(array, dtype=getattr(xp, dtype), device=ELSEWHERE, copy=True)


def _array(array: StandardArray) -> Array:
    return np.array(array.to_device(CPU))


class ArrayAPIHarness(Harness):
    name = "array_api"
    dtypes = ("float32", "float64")
    modes = ("eager",)
    unused_layers = True
    xp = array_api_namespace
    session = ArrayAPISession
    to_backend = staticmethod(_to)
    to_numpy = staticmethod(_array)
    settings = staticmethod(_settings)

    def to_scalar(self, number: int) -> StandardArray:
        return xp.asarray(number, dtype=xp.int32, device=ELSEWHERE)
