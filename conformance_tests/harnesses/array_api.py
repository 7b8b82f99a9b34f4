"""The Python array API standard under the conformance suite: what any library that follows it could run.

array-api-strict has the standard's functions and no others. Here it also refuses boolean indexing and shapes that
depend on data, as compilers do, and keeps the arrays on a device that NumPy cannot read and where none are made by
default. So nothing but the standard can pass, neither in the core nor in this smallest of adapters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

import array_api_strict as xp
import numpy as np

from conformance_tests.harnesses.array_api_namespace import StandardArray
from conformance_tests.harnesses.array_api_namespace import array_api_namespace as namespace
from rigl_core import Connections, Counts, Layer, initial_masks, make_plan, move_pool, random_key, weights_after
from rigl_core.arrays.memory import first_memory, memory_after, observe, whole_weight
from rigl_core.arrays.noise import GRADIENT_NOISE, noisy_gradient
from rigl_core.arrays.random import INITIAL
from rigl_core.step import errors
from rigl_core.step.checkpoint import check_state, make_state
from rigl_core.step.clock import Clock
from rigl_core.testing import models
from rigl_core.testing.harness import Array, Harness, Mask, OptimizerSpec, Setup

P = ParamSpec("P")
Result = TypeVar("Result")
Arrays = dict[str, StandardArray]

CPU, ELSEWHERE = xp.Device("CPU_DEVICE"), xp.Device("device1")


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
        errors.check_scores(self.plan, setup.scores)
        self.params = {name: _to(param, setup.dtype) for name, param in setup.params.items()}
        states = _STATES[setup.optimizer.kind]
        self.state = {name: [xp.zeros_like(param)] * states for name, param in self.params.items()}
        self.gradient_steps = dict.fromkeys(setup.params, 0)
        everything = [(layer.name, xp.ones(layer.shape, dtype=xp.bool, device=ELSEWHERE)) for layer in self.plan.layers]
        self.topology: Arrays = dict(everything)
        self.memory: dict[str, Arrays] = {self.plan.layers[i].name: {} for i in self.plan.sparse_layers}
        scores = {name: _to(array, setup.dtype) for name, array in (setup.scores or {}).items()}
        for pool in self.plan.pools:
            self._start(pool, scores)

    @_strictly
    def step(self, gradients: Mapping[str, Array | None]) -> None:
        dense = {name: _to(gradient, self.dtype) for name, gradient in gradients.items() if gradient is not None}
        recipe, update = self.plan.recipe, self.clock.due
        if update is not None and recipe.reads_gradient and not _all_finite(dense):
            self.clock.defer()
            update = None
        for name, memory in self.memory.items():
            if name in dense:
                self.memory[name] = observe(memory, xp.reshape(dense[name], (-1,)), recipe.momentum, xp=namespace)
        if update is None or recipe.on_update == "after":
            self._descend(dense)
        if update is not None:
            for number in range(len(self.plan.pools)):
                self._move(number, update, dense)
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
        memory = {kind: {name: own[kind] for name, own in self.memory.items()} for kind in self.plan.recipe.memories}
        return dict(self.params), *optimizer, make_state(self.plan, self.clock, self.masks(), memory)

    def load(self, saved: Any) -> None:
        params, state, gradient_steps, sparse = saved
        check_state(self.plan, sparse)
        self.params, self.state, self.gradient_steps = dict(params), dict(state), dict(gradient_steps)
        self.clock.step, self.clock.deferred = sparse["step"], sparse["deferred"]
        self.topology = {name: _to(mask, "bool") for name, mask in sparse["masks"].items()}
        self.memory = {name: {kind: own[name] for kind, own in sparse["memory"].items()} for name in self.memory}

    def sparsify_again(self) -> None:
        raise errors.already_sparsified("optimizer")  # here making a session is sparsifying

    def _start(self, pool: Sequence[int], scores: Arrays) -> None:
        recipe, layers = self.plan.recipe, [self.plan.layers[i] for i in pool]
        connections = [self._connections(layer, INITIAL, scores=scores.get(layer.name)) for layer in layers]
        masks = initial_masks(recipe, connections, [self.plan.initial_active[i] for i in pool], xp=namespace)
        for layer, own, mask in zip(layers, connections, masks, strict=True):
            self.memory[layer.name] = first_memory(recipe.memories, own, mask, xp=namespace)
            self.topology[layer.name] = xp.reshape(mask, layer.shape)
            self.params[layer.name] = _kept(self.params[layer.name], self.topology[layer.name])

    def _descend(self, dense: Arrays) -> None:
        recipe = self.plan.recipe
        for layer in (self.plan.layers[i] for i in self.plan.sparse_layers):
            self.params[layer.name] = xp.reshape(self._connections(layer, INITIAL).weight, layer.shape)
            if layer.name in dense and not recipe.shadow:
                dense = {**dense, layer.name: self._for_optimizer(layer, dense[layer.name])}
        for name, gradient in _clipped(dense, self.spec.clip_norm).items():
            self.gradient_steps[name] += 1
            self.params[name], *self.state[name] = _OPTIMIZERS[self.spec.kind](
                self.spec, self.gradient_steps[name], gradient, self.params[name], *self.state[name]
            )
        for name, memory in self.memory.items():
            whole, mask = Connections(xp.reshape(self.params[name], (-1,))), xp.reshape(self.topology[name], (-1,))
            if recipe.shadow:
                self.memory[name] = memory_after(memory, whole, mask, mask, xp=namespace)
            self.params[name] = _kept(self.params[name], self.topology[name])

    def _for_optimizer(self, layer: Layer, gradient: StandardArray) -> StandardArray:
        """What the optimizer sees: the gradient of active weights, with what the recipe adds to it."""
        recipe = self.plan.recipe
        if recipe.changes_gradient:
            noisy = self._connections(layer, GRADIENT_NOISE, gradient)
            added = noisy_gradient(noisy, recipe.l1, recipe.noise, self.clock.step, xp=namespace)
            gradient = xp.reshape(added, layer.shape)
        return _kept(gradient, self.topology[layer.name])

    def _move(self, number: int, update: int, dense: Arrays) -> None:
        """One pool's topology update; a layer on its own that was not used, and so has no gradient, keeps its own."""
        recipe, row, plan = self.plan.recipe, self.plan.row(update), self.plan
        layers = [plan.layers[i] for i in plan.pools[number]]
        if len(layers) == 1 and layers[0].name not in dense and recipe.reads_gradient:
            return
        connections = [self._connections(layer, update, dense.get(layer.name)) for layer in layers]
        old = [xp.reshape(self.topology[layer.name], (-1,)) for layer in layers]
        keep, grow = (int(table[row, number]) for table in (plan.keep_counts, plan.grow_counts))
        counts = Counts(keep, grow, _to(plan.digits[row], "int32"))
        for layer, own, before, moved in zip(
            layers, connections, old, move_pool(recipe, connections, old, counts, xp=namespace), strict=True
        ):
            name, survivors = layer.name, xp.reshape(moved.survivors, layer.shape)
            self.params[name] = xp.reshape(weights_after(recipe, own, before, moved, xp=namespace), layer.shape)
            self.memory[name] = memory_after(self.memory[name], own, moved.mask, moved.survivors, xp=namespace)
            self.topology[name] = xp.reshape(moved.mask, layer.shape)
            if not recipe.shadow:
                self.state[name] = [_kept(values, survivors) for values in self.state[name]]

    def _connections(
        self, layer: Layer, update: int, gradient: StandardArray | None = None, scores: StandardArray | None = None
    ) -> Connections:
        memory, mask = self.memory[layer.name], xp.reshape(self.topology[layer.name], (-1,))
        weight = whole_weight(xp.reshape(self.params[layer.name], (-1,)), memory, mask, xp=namespace)
        return Connections(
            weight=weight,
            gradient=xp.zeros_like(weight) if gradient is None else xp.reshape(gradient, (-1,)),
            indices=xp.arange(layer.size, dtype=xp.int32, device=ELSEWHERE),
            random_key=random_key(self.plan.recipe.seed, layer.name, update),
            scores=None if scores is None else xp.reshape(scores, (-1,)),
            layer=layer,
            **{kind: array for kind, array in memory.items() if kind != "shadow"},
        )


def _kept(values: StandardArray, mask: StandardArray) -> StandardArray:
    return xp.where(mask, values, xp.zeros_like(values))


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
    xp = namespace
    session = ArrayAPISession
    to_backend = staticmethod(_to)
    to_numpy = staticmethod(_array)
    settings = staticmethod(_settings)

    def to_scalar(self, number: int) -> StandardArray:
        return xp.asarray(number, dtype=xp.int32, device=ELSEWHERE)
