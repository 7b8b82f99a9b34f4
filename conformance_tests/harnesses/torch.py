"""The PyTorch backend under the conformance suite."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from conformance_tests.harnesses.active import active_where_possible, held
from conformance_tests.harnesses.torch_modules import each_column, model_of, tensor_of
from conformance_tests.harnesses.torch_optimizers import make_optimizer
from rigl_backends.torch import SparseConv2d, SparseLinear, sparsify, torch_namespace
from rigl_core.adapter import Index
from rigl_core.testing.harness import Array, Harness, Mask, Setup
from rigl_core.testing.layout import laid_out_like
from rigl_core.testing.limits import NotOffered


def _weighted_sum(params: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A loss whose gradient with respect to each parameter is the given one, bit for bit."""
    total = torch.zeros((), dtype=params[0].dtype, device=params[0].device)
    for param, gradient in zip(params, gradients, strict=True):
        total = total + (param * gradient).sum()
    return total


def _mlp(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    hidden = functional.linear(x, params["fc1.weight"], params["fc1.bias"]).relu()
    return functional.linear(hidden, params["fc2.weight"], params["fc2.bias"])


def _convnet(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    hidden = functional.conv2d(x.reshape(-1, 1, 8, 8), params["conv1.weight"], params["conv1.bias"]).relu()
    hidden = functional.conv2d(hidden, params["conv2.weight"], stride=2).relu()
    return functional.linear(hidden.flatten(1), params["fc.weight"], params["fc.bias"])


def _in_mode(function: Callable[..., Tensor], mode: str, backend: str = "inductor") -> Callable[..., Tensor]:
    if mode in ("eager", "active"):
        return function
    compiled = _compiled(function, backend)

    def call(*args: Any) -> Tensor:
        # Sizes 0 and 1 and every dtype are compiled for themselves: more often than the default limit foresees.
        with torch._dynamo.config.patch(recompile_limit=256):
            return compiled(*args)

    return call


@functools.cache
def _compiled(function: Callable[..., Tensor], backend: str) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=True, backend=backend)


class TorchSession:
    def __init__(self, device: str, setup: Setup) -> None:
        self.mode = setup.mode
        self.device = torch.device(device)
        self.model = model_of(setup.params, setup.layers, setup.dtype).to(self.device)
        self.params = dict(self.model.named_parameters())
        self.clip_norm, self.evaluations = setup.optimizer.clip_norm, setup.optimizer.evaluations
        self.micro_batches, self.calls = setup.micro_batches, 0
        self.optimizer = make_optimizer(setup.optimizer, list(self.model.parameters()))
        self.active: dict[str, SparseLinear | SparseConv2d] = {}
        for gradients in setup.dense_steps:
            self._evaluate(self._loss(gradients))
            self.optimizer.step()
        is_active = setup.mode == "active"
        storage = active_where_possible(setup, inputs_first=False, convolutions=True) if is_active else "masks"
        self.sparse = sparsify(
            self.model,
            self.optimizer,
            setup.recipe,
            layers=setup.layers,
            scores=setup.scores,
            initial=setup.initial,
            storage=storage,
        )
        owners = {layer.name: self.model.get_submodule(layer.name.rpartition(".")[0]) for layer in setup.layers}
        self.active = {name: owner for name, owner in owners.items() if isinstance(owner, SparseLinear | SparseConv2d)}

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        used = {name: g for name, g in gradients.items() if g is not None}
        if self.evaluations > 1:
            self.optimizer.step(lambda: self._evaluate(self._loss(used)))
            return
        if self.calls % self.micro_batches == 0:
            self.optimizer.zero_grad()
        self.calls += 1
        (self._loss(used) / self.micro_batches).backward()  # type: ignore[no-untyped-call]
        if self.calls % self.micro_batches == 0:
            self._clip()
            self.optimizer.step()

    def _loss(self, gradients: Mapping[str, Array]) -> Tensor:
        if self.active.keys() & gradients.keys():
            return self._loss_of_active(gradients)
        params = [self.params[name] for name in gradients]
        own = [torch.from_numpy(laid_out_like(g, g.dtype)) for g in gradients.values()]
        tensors = [gradient.to(self.device, params[0].dtype) for gradient in own]
        return _in_mode(_weighted_sum, self.mode, backend="aot_eager")(params, tensors)

    def _loss_of_active(self, gradients: Mapping[str, Array]) -> Tensor:
        """The same: the identity as a layer's inputs gives it any gradient that is finite."""
        others = {name: g for name, g in gradients.items() if name not in self.active}
        total = self._loss(others) if others else torch.zeros(())
        for name in self.active.keys() & gradients.keys():
            gradient = torch.from_numpy(gradients[name]).float()
            if not gradient.isfinite().all():
                raise NotOffered("the gradient of a layer of active weights is a sum of products, and these are finite")
            total = total + (each_column(self.active[name]) * gradient.flatten(1).t()).sum()
        return total

    def step_samples(self, samples: Mapping[str, Sequence[tuple[Array, Array]]]) -> None:
        self.optimizer.zero_grad()
        total = torch.zeros(())
        for name, pairs in samples.items():
            for x, dy in pairs:
                total = total + (self.active[name].product(torch.from_numpy(x)) * torch.from_numpy(dy)).sum()
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        if self.active:
            raise NotOffered("the models of the suite are functions of dense weights")
        x = torch.tensor(inputs, device=self.device)
        logits = _in_mode({"mlp": _mlp, "convnet": _convnet}[model], self.mode)(self.params, x)
        self._evaluate(functional.cross_entropy(logits, torch.tensor(labels, device=self.device)))
        self.optimizer.step()

    def sparsify_again(self) -> None:
        sparsify(self.model, self.optimizer, self.sparse.plan.recipe)

    def _evaluate(self, loss: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._clip()
        return loss

    def _clip(self) -> None:
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)

    def step_past(self, gradients: Mapping[str, Array]) -> None:
        self.optimizer.zero_grad()
        self._loss(gradients).backward()  # type: ignore[no-untyped-call]
        torch.optim.SGD(self.model.parameters(), 0.1).step()

    def weights(self) -> dict[str, Array]:
        own = {name: _array(module.dense()) for name, module in self.active.items()}
        return {name: _array(param) for name, param in self.params.items()} | own

    def _indices(self) -> dict[str, Index]:
        return {name: module.index for name, module in self.active.items()}

    def write(self, weights: Mapping[str, Array]) -> None:
        for name, weight in held(self._indices(), weights).items():
            self.params[name].detach().copy_(torch.tensor(weight))

    def replace(self, weights: Mapping[str, Array]) -> None:
        for name, weight in held(self._indices(), weights).items():
            self.params[name].data = torch.tensor(weight).to(self.params[name])

    def masks(self) -> dict[str, Mask]:
        return {name: mask.cpu().numpy() for name, mask in self.sparse.masks.items()}

    def optimizer_state(self) -> dict[str, list[Array]]:
        return {
            name: [
                self._dense(name, _array(value))
                for value in self.optimizer.state.get(param, {}).values()
                if isinstance(value, Tensor) and value.shape == param.shape
            ]
            for name, param in self.params.items()
        }

    def _dense(self, name: str, values: Array) -> Array:
        """State in the layer's shape, with that of a new weight outside the mask."""
        if name not in self.active:
            return values
        new = 0.1 if isinstance(self.optimizer, torch.optim.Adagrad) else 0
        module = self.active[name]
        return module.index.dense(values, new).reshape(module.shape)

    def steps(self) -> int:
        return self.sparse.step

    def save(self) -> Any:
        # The user's checkpoint on disk copies the model's and the optimizer's state; the handle's own must need none.
        copies = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))
        return *copies, self.sparse.state_dict()

    def load(self, saved: Any) -> None:
        model, optimizer, sparse = saved
        loads: list[tuple[Any, Any]] = [(self.model, model), (self.optimizer, optimizer)]
        # A model of active weights brings its topology, also if the optimizer's state is then refused.
        for owner, state in reversed(loads) if self.active else loads:
            owner.load_state_dict(copy.deepcopy(state))
        self.sparse.load_state_dict(sparse)


def _array(tensor: Tensor) -> Array:
    tensor = tensor.detach().cpu()
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


class TorchHarness(Harness):
    """Eager, and under torch.compile: inductor compiles the core's functions, AOT autograd the given gradients."""

    name = "torch"
    dtypes = ("float16", "bfloat16", "float32", "float64")
    modes = ("eager", "compiled", "active")
    slow_modes = ("active",)
    unused_layers = True
    has = ("samples", "new arrays", "steps past", "closures", "adagrad", "dense steps", "micro-batches", "given masks")
    xp = torch_namespace
    to_numpy = staticmethod(_array)
    in_mode = staticmethod(_in_mode)

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.session = functools.partial(TorchSession, device)
        torch.set_num_threads(1)  # with arrays this small, several threads only wait for each other

    def to_backend(self, array: Array, dtype: str) -> Tensor:
        return tensor_of(array, dtype).to(self.device)
