"""The PyTorch backend under the conformance suite."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from rigl_backends.torch import sparsify, torch_namespace
from rigl_core import GRADIENT, MAGNITUDE, Connections, Criterion, Layer, Recipe, updated_mask
from rigl_core.random import random_scores
from rigl_core.testing.harness import Array, Mask, OptimizerSpec


class TorchHarness:
    name = "torch"
    dtypes = ("float16", "bfloat16", "float32", "float64")
    modes = ("eager",)
    unused_layers = True

    def updated_mask(
        self, weight: Array, gradient: Array, mask: Mask, keep: int, grow: int, *, dtype: str, mode: str
    ) -> Mask:
        connections = Connections(_tensor(weight, dtype), _tensor(gradient, dtype))
        drop_scores = MAGNITUDE.score(connections, torch_namespace)
        grow_scores = GRADIENT.score(connections, torch_namespace)
        new = updated_mask(drop_scores, grow_scores, torch.tensor(mask), keep, grow, xp=torch_namespace)
        return np.asarray(new.numpy())

    def scores(self, criterion: Criterion, weight: Array, gradient: Array, *, dtype: str, mode: str) -> Array:
        return _array(criterion.score(Connections(_tensor(weight, dtype), _tensor(gradient, dtype)), torch_namespace))

    def random_scores(self, key: tuple[int, int], size: int, *, mode: str) -> npt.NDArray[np.int32]:
        scores = random_scores(key, torch.arange(size, dtype=torch.int32), xp=torch_namespace)
        return np.asarray(scores.numpy())

    def start(
        self,
        params: Mapping[str, Array],
        layers: Sequence[Layer],
        recipe: Recipe,
        optimizer: OptimizerSpec,
        *,
        dtype: str = "float32",
        mode: str = "eager",
    ) -> TorchSession:
        return TorchSession(params, layers, recipe, optimizer, dtype)


class TorchSession:
    def __init__(
        self, params: Mapping[str, Array], layers: Sequence[Layer], recipe: Recipe, spec: OptimizerSpec, dtype: str
    ) -> None:
        self.model = _model(params, layers, dtype)
        self.params = dict(self.model.named_parameters())
        self.clip_norm = spec.clip_norm
        self.optimizer = _make(spec, list(self.model.parameters()))
        self.sparse = sparsify(self.model, self.optimizer, recipe)

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        self.optimizer.zero_grad()
        # The gradient of sum(w * g) with respect to w is g, bit for bit.
        loss = sum(
            (self.params[name] * torch.tensor(g, dtype=self.params[name].dtype)).sum()
            for name, g in gradients.items()
            if g is not None
        )
        assert isinstance(loss, Tensor)
        self._descend(loss)

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        self.optimizer.zero_grad()
        x = torch.tensor(inputs)
        logits = _mlp(self.params, x) if model == "mlp" else _convnet(self.params, x)
        self._descend(functional.cross_entropy(logits, torch.tensor(labels)))

    def _descend(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()

    def weights(self) -> dict[str, Array]:
        return {name: _array(param) for name, param in self.params.items()}

    def masks(self) -> dict[str, Mask]:
        return {name: mask.numpy() for name, mask in self.sparse.masks.items()}

    def optimizer_state(self) -> dict[str, list[Array]]:
        return {
            name: [
                _array(value)
                for value in self.optimizer.state.get(param, {}).values()
                if isinstance(value, Tensor) and value.shape == param.shape
            ]
            for name, param in self.params.items()
        }

    def steps(self) -> int:
        return self.sparse.step

    def save(self) -> Any:
        # The user's checkpoint on disk copies the model's and the optimizer's state; the handle's own must need none.
        copies = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))
        return *copies, self.sparse.state_dict()

    def load(self, saved: Any) -> None:
        model, optimizer, sparse = saved
        self.model.load_state_dict(copy.deepcopy(model))
        self.optimizer.load_state_dict(copy.deepcopy(optimizer))
        self.sparse.load_state_dict(sparse)


def _mlp(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    hidden = functional.linear(x, params["fc1.weight"], params["fc1.bias"]).relu()
    return functional.linear(hidden, params["fc2.weight"], params["fc2.bias"])


def _convnet(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    hidden = functional.conv2d(x.reshape(-1, 1, 8, 8), params["conv1.weight"], params["conv1.bias"]).relu()
    hidden = functional.conv2d(hidden, params["conv2.weight"], stride=2).relu()
    return functional.linear(hidden.flatten(1), params["fc.weight"], params["fc.bias"])


def _model(params: Mapping[str, Array], layers: Sequence[Layer], dtype: str) -> nn.Module:
    """A module with these parameters: layers become the weights of Linear and Conv2d modules."""
    model = nn.Module()
    names = {layer.name for layer in layers}
    for name, value in params.items():
        parent, _, own_name = name.rpartition(".")
        if name in names:
            module: nn.Module = nn.Linear(1, 1, bias=False) if value.ndim == 2 else nn.Conv2d(1, 1, 1, bias=False)
            model.add_module(parent, module)
        model.get_submodule(parent).register_parameter(own_name, nn.Parameter(_tensor(value, dtype)))
    return model


def _make(spec: OptimizerSpec, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    if spec.kind == "sgd":
        return torch.optim.SGD(params, spec.lr, spec.momentum, weight_decay=spec.weight_decay)
    return torch.optim.AdamW(params, spec.lr, weight_decay=spec.weight_decay)


def _tensor(array: Array, dtype: str) -> Tensor:
    return torch.tensor(array, dtype=getattr(torch, dtype))


def _array(tensor: Tensor) -> Array:
    tensor = tensor.detach()
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
