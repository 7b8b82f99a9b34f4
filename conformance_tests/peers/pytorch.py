"""What the harnesses of PyTorch libraries share: a model with the suite's parameters, and a user's loop around it."""

from __future__ import annotations

import copy
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conformance_tests.harnesses.torch_optimizers import make_optimizer
from rigl_core.testing import Array, Harness, Mask, NotOffered, Setup


class PeerSession(ABC):
    """A PyTorch user's training; a subclass adds the lines that the library's documentation adds.

    Attributes:
        setup: what the suite asks for.
        model: a module whose submodules hold the parameters of ``setup``.
        optimizer: an optimizer of ``model``.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, setup: Setup) -> None:
        if not hasattr(torch, setup.dtype) or not getattr(torch, setup.dtype).is_floating_point:
            raise NotOffered(f"no rule says what becomes of {setup.dtype}")
        torch.manual_seed(setup.recipe.seed % 2**63)  # these libraries draw from PyTorch's own generator
        self.setup = setup
        self.model = self.make_model()
        self.optimizer = make_optimizer(setup.optimizer, list(self.model.parameters()))
        self.sparsify()

    def make_model(self) -> nn.Module:
        """A module with the parameters: layers become the weights of Linear and Conv2d."""
        model = nn.Module()
        layers = {layer.name for layer in self.setup.layers}
        for name, value in self.setup.params.items():
            parent, _, own_name = name.rpartition(".")
            if name in layers:
                module: nn.Module = nn.Linear(1, 1, bias=False) if value.ndim == 2 else nn.Conv2d(1, 1, 1, bias=False)
                model.add_module(parent, module)
            model.get_submodule(parent).register_parameter(own_name, nn.Parameter(self.tensor(value)))
        return model

    @abstractmethod
    def sparsify(self) -> None:
        """Make the library's scheduler for ``self.model`` and ``self.optimizer``."""

    def advance(self) -> None:
        """What the loop does after the backward pass."""
        self.optimizer.step()

    def tensor(self, array: Array) -> Tensor:
        return torch.tensor(array, dtype=getattr(torch, self.setup.dtype))

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        self.optimizer.zero_grad()
        self.loss({name: self.tensor(g) for name, g in gradients.items() if g is not None}).backward()
        if self.setup.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.setup.optimizer.clip_norm)
        self.advance()

    def loss(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """A loss whose gradients are these."""
        return torch.stack([(self.weight(name) * g).sum() for name, g in gradients.items()]).sum()

    def weight(self, name: str) -> Tensor:
        """A parameter as the network sees it."""
        parent, _, own_name = name.rpartition(".")
        weight: Tensor = getattr(self.model.get_submodule(parent), own_name)
        return weight

    def stored(self, name: str) -> nn.Parameter:
        """A parameter as the optimizer holds it."""
        return self.model.get_parameter(name)

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        raise NotOffered("the suite's models, of which the first update is in the first step")

    def weights(self) -> dict[str, Array]:
        return {name: to_numpy(self.weight(name)) for name in self.setup.params}

    def write(self, weights: Mapping[str, Array]) -> None:
        for name, weight in weights.items():
            self.stored(name).detach().copy_(self.tensor(weight))

    @abstractmethod
    def masks(self) -> dict[str, Mask]:
        """The library's masks."""

    def optimizer_state(self) -> dict[str, list[Array]]:
        return {name: self.state_of(name) for name in self.setup.params}

    def state_of(self, name: str) -> list[Array]:
        """What the optimizer holds for each weight of a parameter."""
        param = self.stored(name)
        state = self.optimizer.state.get(param, {}).values()
        return [to_numpy(value) for value in state if isinstance(value, Tensor) and value.shape == param.shape]

    @abstractmethod
    def steps(self) -> int:
        """The steps that the library has counted."""

    def save(self) -> Any:
        file = io.BytesIO()
        torch.save([self.model.state_dict(), self.optimizer.state_dict(), self.kept()], file)
        return file.getvalue()

    def load(self, saved: Any) -> None:
        model, optimizer, kept = torch.load(io.BytesIO(saved), weights_only=False)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.restore(kept)

    @abstractmethod
    def kept(self) -> Any:
        """What a checkpoint has of the library."""

    @abstractmethod
    def restore(self, kept: Any) -> None:
        """Continue from what `kept` returned."""

    def sparsify_again(self) -> None:
        self.sparsify()


def to_numpy(tensor: Tensor) -> Array:
    tensor = tensor.detach()
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


class PeerHarness(Harness):
    """A PyTorch library, eager; it has no functions of a single update for the suite.

    Attributes:
        given_weights: whether the library starts with a model's own weights.
    """

    dtypes = ("float16", "bfloat16", "float32", "float64")
    modes = ("eager",)
    unused_layers = True
    given_weights = True

    def __init__(self) -> None:
        torch.set_num_threads(1)

    def to_backend(self, array: Array, dtype: str) -> Tensor:
        return torch.tensor(copy.copy(array), dtype=getattr(torch, dtype))

    def to_numpy(self, array: Tensor) -> Array:
        return to_numpy(array)
