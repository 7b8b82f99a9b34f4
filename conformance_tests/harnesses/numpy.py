"""The NumPy backend under the conformance suite."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conformance_tests.harnesses.active import active_where_possible, held
from rigl_backends.numpy import SGD, Adam, Optimizer, sparsify
from rigl_core.adapter import Index, numpy_namespace
from rigl_core.testing import models
from rigl_core.testing.harness import Array, Harness, Mask, OptimizerSpec, Setup
from rigl_core.testing.layout import laid_out_like
from rigl_core.testing.limits import NotOffered
from rigl_core.testing.micro_batches import MicroBatches


class NumPySession:
    def __init__(self, setup: Setup) -> None:
        self.params = {name: laid_out_like(param, setup.dtype) for name, param in setup.params.items()}
        self.clip_norm = setup.optimizer.clip_norm
        self.micro_batches = MicroBatches(setup.micro_batches)
        self.optimizer = _make(setup.optimizer, self.params)
        for gradients in setup.dense_steps:
            self.optimizer.step({name: g.astype(self.params[name].dtype) for name, g in gradients.items()})
        storage = active_where_possible(setup, convolutions=True) if setup.mode == "active" else "masks"
        self.sparse = sparsify(
            self.params,
            self.optimizer,
            setup.recipe,
            layers=setup.layers,
            scores=setup.scores,
            initial=setup.initial,
            storage=storage,
        )

    def sparsify_again(self) -> None:
        sparsify(self.params, self.optimizer, self.sparse.plan.recipe, layers=self.sparse.plan.layers)

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        if (mean := self.micro_batches.add(gradients)) is None:
            return
        grads = {name: g if g is None else self._gradient(name, g) for name, g in mean.items()}
        if self.clip_norm is not None:
            grads = self.sparse.mask_gradients(grads)
            shown = [g if isinstance(g, np.ndarray) else g.active for g in grads.values() if g is not None]
            norm = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in shown))
            scale = float(min(1.0, self.clip_norm / norm)) if norm else 1.0
            grads = {name: g if g is None else g * scale for name, g in grads.items()}
        self.optimizer.step(grads)

    def _gradient(self, name: str, gradient: Array) -> Any:
        """The gradient as a user has it. Where a layer multiplies, the identity as its inputs gives any finite one."""
        gradient = gradient.astype(self.params[name].dtype)
        if name not in self.sparse.linear or not np.isfinite(gradient).all():
            return gradient
        linear = self.sparse.linear[name]
        index = linear.index
        outputs = gradient if index.inputs_first else np.ascontiguousarray(gradient.T)
        return linear.backward(np.eye(index.cols, dtype=np.float32), outputs, needs_inputs=False)[1]

    def _indices(self) -> dict[str, Index]:
        return {name: products.index for name, products in self._products().items()}

    def _products(self) -> dict[str, Any]:
        """The products of the layers that hold only their active weights."""
        return {**self.sparse.linear, **self.sparse.conv}

    def step_samples(self, samples: Mapping[str, Sequence[tuple[Array, Array]]]) -> None:
        grads: dict[str, Any] = {}
        for name, pairs in samples.items():
            linear = self.sparse.linear[name]
            parts = [linear.backward(x, dy, needs_inputs=False)[1] for x, dy in pairs]
            grads[name] = functools.reduce(operator.add, parts)
        self.optimizer.step(grads)

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        self.step(models.gradients(model, self.weights(), inputs, labels))

    def step_past(self, gradients: Mapping[str, Array]) -> None:
        if self._products():
            raise NotOffered("nothing shows that another optimizer has changed active weights alone")
        SGD(self.params, 0.1).step(gradients)

    def weights(self) -> dict[str, Array]:
        own = {name: products.dense() for name, products in self._products().items()}
        return {name: param.copy() for name, param in self.params.items()} | own

    def write(self, weights: Mapping[str, Array]) -> None:
        for name, weight in held(self._indices(), weights).items():
            self.params[name][...] = weight

    def replace(self, weights: Mapping[str, Array]) -> None:
        own = held(self._indices(), weights)
        self.params.update({name: weight.astype(self.params[name].dtype) for name, weight in own.items()})

    def masks(self) -> dict[str, Mask]:
        return self.sparse.masks

    def optimizer_state(self) -> dict[str, list[Array]]:
        new = {"sum": 0.1}  # of Adagrad
        return {
            name: [self._dense(name, value, new.get(key, 0)) for key, value in state.items() if np.ndim(value)]
            for name, state in self.optimizer.state.items()
        }

    def _dense(self, name: str, values: Array, outside: float) -> Array:
        if name not in self._products():
            return values.copy()
        shape = next(layer.shape for layer in self.sparse.plan.layers if layer.name == name)
        return self._products()[name].index.dense(values, outside).reshape(shape)

    def steps(self) -> int:
        return self.sparse.step

    def save(self) -> Any:
        return copy.deepcopy(self.params), copy.deepcopy(self.optimizer.state), self.sparse.state_dict()

    def load(self, saved: Any) -> None:
        params, state, sparse = saved
        for name, param in params.items():
            if name in self._products():
                self.params[name] = param.copy()  # a ramp changes how many there are
            else:
                self.params[name][...] = param
        self.optimizer.state = copy.deepcopy(state)
        self.sparse.load_state_dict(sparse)


class CenteredSGD(SGD):
    def _step_one(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
        super()._step_one(param, grad - grad.mean(), state)


class Adagrad(Optimizer):
    """As a user of the adapter writes one."""

    def _step_one(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
        total = state.setdefault("sum", np.full_like(param, 0.1))
        total += grad * grad
        param -= self.lr * grad / (np.sqrt(total) + 1e-10)


def _make(spec: OptimizerSpec, params: dict[str, Array]) -> Optimizer:
    if spec.kind == "adagrad":
        return Adagrad(params, spec.lr, spec.weight_decay)
    if spec.kind == "sgd":
        make = CenteredSGD if spec.centered else SGD
        return make(params, spec.lr, spec.momentum, weight_decay=spec.weight_decay)
    return Adam(params, spec.lr, weight_decay=spec.weight_decay, decoupled=True)


class NumPyHarness(Harness):
    name = "numpy"
    dtypes = ("float16", "float32", "float64")
    modes = ("eager", "active")
    slow_modes = ("active",)  # as it is the same code in other respects
    unused_layers = True
    has = ("samples", "new arrays", "steps past", "adagrad", "dense steps", "micro-batches", "given masks")
    lacks: Mapping[str, str] = {"closures": "its optimizers are given gradients, and evaluate nothing"}
    xp = numpy_namespace
    session = NumPySession

    def to_backend(self, array: Array, dtype: str) -> Array:
        return np.array(array, dtype)

    def to_numpy(self, array: Array) -> Array:
        return np.array(array)
