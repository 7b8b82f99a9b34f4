"""SGD and Adam on dicts of arrays, with the formulas and defaults of PyTorch's optimizers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Params = dict[str, npt.NDArray[Any]]
Gradients = Mapping[str, "npt.NDArray[Any] | None"]


class Optimizer(ABC):
    """Changes ``params`` in place, given gradients by name.

    Attributes:
        params: the arrays that are trained, by name.
        state: per-parameter state: ``state[name][key]``; arrays of the parameter's shape belong to its weights.
    """

    def __init__(self, params: Params, lr: float, weight_decay: float) -> None:
        self.params = params
        self.lr = lr
        self.weight_decay = weight_decay
        self.state: dict[str, dict[str, Any]] = {name: {} for name in params}

    def step(self, grads: Gradients) -> None:
        """One step. Parameters whose gradient is missing or None stay.

        Args:
            grads: arrays of the parameters' shapes, by name.
        """
        for name, param in self.params.items():
            grad = grads.get(name)
            if grad is not None:
                self._step_one(param, grad, self.state[name])

    @abstractmethod
    def _step_one(self, param: npt.NDArray[Any], grad: npt.NDArray[Any], state: dict[str, Any]) -> None:
        """Change one parameter and its state in place."""


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, Nesterov's variant and L2 weight decay."""

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.momentum = momentum
        self.nesterov = nesterov

    def _step_one(self, param: npt.NDArray[Any], grad: npt.NDArray[Any], state: dict[str, Any]) -> None:
        if self.weight_decay:
            grad = grad + self.weight_decay * param
        if self.momentum:
            if "momentum" in state:
                state["momentum"] *= self.momentum
                state["momentum"] += grad
            else:
                state["momentum"] = grad.copy()
            grad = grad + self.momentum * state["momentum"] if self.nesterov else state["momentum"]
        param -= self.lr * grad


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015); with ``decoupled`` weight decay it is AdamW (Loshchilov & Hutter 2019)."""

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.betas = betas
        self.eps = eps
        self.decoupled = decoupled

    def _step_one(self, param: npt.NDArray[Any], grad: npt.NDArray[Any], state: dict[str, Any]) -> None:
        beta1, beta2 = self.betas
        if not state:
            state.update(step=0, mean=np.zeros_like(param), square=np.zeros_like(param))
        state["step"] += 1
        if self.decoupled:
            param *= 1 - self.lr * self.weight_decay
        elif self.weight_decay:
            grad = grad + self.weight_decay * param
        state["mean"] *= beta1
        state["mean"] += (1 - beta1) * grad
        state["square"] *= beta2
        state["square"] += (1 - beta2) * grad * grad
        mean_scale = self.lr / (1 - beta1 ** state["step"])
        square_scale = math.sqrt(1 - beta2 ** state["step"])
        param -= mean_scale * state["mean"] / (np.sqrt(state["square"]) / square_scale + self.eps)
