"""The Python array API standard under the conformance suite: any library that follows it could run this.

array-api-strict has the standard's functions and no others. Here it also refuses boolean indexing and shapes that
depend on data, as compilers do. Its arrays are on a device that NumPy cannot read and that is not the default one. So
code that needs more than the standard fails, in the core and in this smallest of adapters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

import array_api_strict as xp

from conformance_tests.harnesses.array_api_namespace import StandardArray, array_api_namespace
from conformance_tests.harnesses.array_api_training import ELSEWHERE, Arrays, SparseTraining, to_numpy
from rigl_core.adapter import errors, make_plan, start_from
from rigl_core.testing import models
from rigl_core.testing.harness import Array, Harness, Mask, OptimizerSpec, Setup
from rigl_core.testing.micro_batches import MicroBatches

P = ParamSpec("P")
Result = TypeVar("Result")


def _settings(dtype: str = "") -> AbstractContextManager[None]:
    return xp.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False)


def _strictly(function: Callable[P, Result]) -> Callable[P, Result]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        with _settings():
            return function(*args, **kwargs)

    return run


class ArrayAPISession:
    """A sparse training, as a user of the adapter sees it."""

    @_strictly
    def __init__(self, setup: Setup) -> None:
        recipe, scores = start_from(setup.recipe, setup.layers, setup.initial, setup.scores)
        plan, self.dtype = make_plan(recipe, setup.layers), setup.dtype
        self.micro_batches = MicroBatches(setup.micro_batches)
        for layer in plan.layers:
            errors.check_dtype(layer, setup.dtype)
        errors.check_scores(plan, scores)
        params = {name: _to(param, setup.dtype) for name, param in setup.params.items()}
        self.optimizer = Optimizer(params, setup.optimizer)
        for gradients in setup.dense_steps:
            self.optimizer.step({name: _to(g, setup.dtype) for name, g in gradients.items()})
        self.sparse = SparseTraining(plan, self.optimizer, scores)

    @_strictly
    def step(self, gradients: Mapping[str, Array | None]) -> None:
        if (mean := self.micro_batches.add(gradients)) is not None:
            self.sparse.step_by({name: _to(g, self.dtype) for name, g in mean.items() if g is not None})

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        self.step(models.gradients(model, self.weights(), inputs, labels))  # the standard does not differentiate

    @_strictly
    def step_past(self, gradients: Mapping[str, Array]) -> None:
        own = self.optimizer.params
        self.optimizer.params = {name: own[name] - 0.1 * _to(g, self.dtype) for name, g in gradients.items()}

    def weights(self) -> dict[str, Array]:
        return {name: to_numpy(param) for name, param in self.optimizer.params.items()}

    @_strictly
    def write(self, weights: Mapping[str, Array]) -> None:
        self.optimizer.params = {name: _to(weight, self.dtype) for name, weight in weights.items()}

    replace = write

    def masks(self) -> dict[str, Mask]:
        return self.sparse.masks

    def optimizer_state(self) -> dict[str, list[Array]]:
        return {name: [to_numpy(values) for values in state] for name, state in self.optimizer.state.items()}

    def steps(self) -> int:
        return self.sparse.step

    def save(self) -> Any:
        own = self.optimizer
        return dict(own.params), dict(own.state), dict(own.steps), self.sparse.state_dict()

    def load(self, saved: Any) -> None:
        own, (params, state, steps, sparse) = self.optimizer, saved
        own.params, own.state, own.steps = dict(params), dict(state), dict(steps)
        self.sparse.load_state_dict(sparse)

    def sparsify_again(self) -> None:
        raise errors.already_sparsified("optimizer")  # here making a session is sparsifying


class Optimizer:
    """SGD or Adam on a dict of arrays."""

    def __init__(self, params: Arrays, spec: OptimizerSpec) -> None:
        self.params, self.spec = params, spec
        self.state = {name: [xp.zeros_like(param)] * _STATES[spec.kind] for name, param in params.items()}
        self.steps = dict.fromkeys(params, 0)

    def step(self, gradients: Arrays) -> None:
        for name, gradient in _clipped(gradients, self.spec.clip_norm).items():
            self.steps[name] += 1
            self.params[name], *self.state[name] = _FORMULAS[self.spec.kind](
                self.spec, self.steps[name], gradient, self.params[name], *self.state[name]
            )


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


_FORMULAS: dict[str, Callable[..., tuple[StandardArray, ...]]] = {"sgd": _sgd, "adam": _adam}
_STATES = {"sgd": 1, "adam": 2}


def _to(array: Array, dtype: str) -> StandardArray:
    return xp.asarray(array, dtype=getattr(xp, dtype), device=ELSEWHERE, copy=True)


class ArrayAPIHarness(Harness):
    name = "array_api"
    dtypes = ("float32", "float64")
    modes = ("eager",)
    unused_layers = True
    has = ("new arrays", "steps past", "dense steps", "micro-batches", "given masks")
    lacks: Mapping[str, str] = {
        "samples": "its layers have masks, and no products of their own",
        "adagrad": "it has SGD and Adam, of which all state starts at 0",
        "closures": "its optimizers are given gradients, and evaluate nothing",
    }
    xp = array_api_namespace
    session = ArrayAPISession
    to_backend = staticmethod(_to)
    to_numpy = staticmethod(to_numpy)
    settings = staticmethod(_settings)

    def to_scalar(self, number: int) -> StandardArray:
        return xp.asarray(number, dtype=xp.int32, device=ELSEWHERE)
