"""Small optimizers of the kinds that people write: with state that is not one float of 0 for each weight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Custom(Optimizer):
    """An optimizer whose subclasses say what happens to one parameter, in `change`."""

    def __init__(self, params: Iterable[Any], lr: float = 0.01, **options: Any) -> None:
        super().__init__(params, {"lr": lr, **options})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self.change(param, param.grad, self.state[param], group)
        return loss

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError


def moment(state: dict[str, Any], grad: Tensor) -> Tensor:
    found: Tensor = state.setdefault("moment", torch.zeros_like(grad)).lerp_(grad, 0.1)
    return found


class Restless(torch.optim.SGD):
    """An optimizer that moves every weight, with or without a gradient, and counts in its state."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            for param in group["params"]:
                param.add_(0.01)
                self.state[param]["step"] = self.state[param].get("step", torch.zeros(())) + 1
        return loss


class Shampoo(Custom):
    """Matrices of rows by rows and of columns by columns; they have the shape of a square layer."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        rows, columns = grad.shape
        left = state.setdefault("left", 0.01 * torch.eye(rows)).add_(grad @ grad.T)
        right = state.setdefault("right", [0.01 * torch.eye(columns)])[0].add_(grad.T @ grad)
        param.sub_(inverse_root(left) @ moment(state, grad) @ inverse_root(right), alpha=group["lr"])


class Rotated(Custom):
    """A second moment in the basis of the eigenvectors, as in SOAP."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        left = state.setdefault("left", torch.zeros(len(grad), len(grad))).add_(grad @ grad.T)
        basis = torch.linalg.eigh(left).eigenvectors
        square = state.setdefault("square", torch.zeros_like(grad)).lerp_((basis.T @ grad) ** 2, 0.1)
        step = basis @ ((basis.T @ moment(state, grad)) / (square.sqrt() + 1e-3))
        param.sub_(step, alpha=group["lr"])


class Counting(Custom):
    """A counter for each weight, all of them equal."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["count"] = state.get("count", torch.zeros_like(param)) + 1
        param.sub_(moment(state, grad) / (1 - 0.9 ** state["count"]), alpha=group["lr"])


class Stacked(Custom):
    """Two moments in one array, one in a flat array, and past gradients."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        both = state.setdefault("both", torch.zeros(2, *grad.shape))
        both[0].lerp_(grad, 0.1)
        both[1].lerp_(grad, 0.01)
        flat = state.setdefault("flat", torch.zeros(grad.numel())).lerp_(grad.reshape(-1), 0.5)
        past = state.setdefault("past", deque(maxlen=2))
        past.append(grad.clone())
        param.sub_(both.sum(0) + flat.reshape(param.shape) + past[0], alpha=group["lr"])


class Late(Custom):
    """State that appears at a step of its own."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["step"] = state.get("step", 0) + 1
        if state["step"] >= group["first"]:
            grad = moment(state, grad)
        param.sub_(grad, alpha=group["lr"])


class Eager(Custom):
    """State that the constructor makes."""

    def __init__(self, params: Iterable[Any], lr: float = 0.01) -> None:
        super().__init__(params, lr)
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param]["sum"] = torch.full_like(param, 0.5)

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["sum"].addcmul_(grad, grad)
        param.addcdiv_(grad, state["sum"].sqrt(), value=-group["lr"])


class EightBits(Custom):
    """A moment in codes, with what they mean beside it, as in bitsandbytes. Code 0 is the most negative number."""

    meanings = "qmap1"

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if "state1" not in state:
            state["state1"] = torch.zeros_like(param, dtype=torch.uint8)
            state["absmax1"] = torch.zeros(())
            state[self.meanings] = torch.arange(-127, 128) / 127
        known = state[self.meanings][state["state1"].long()] * state["absmax1"]
        new = known.lerp(grad, 0.1)
        state["absmax1"] = new.abs().max()
        state["state1"].copy_((new / state["absmax1"] * 127 + 127).round())
        param.sub_(new, alpha=group["lr"])


class UnknownCodes(EightBits):
    """Codes whose meaning is not known."""

    meanings = "table"


class FourBits(Custom):
    """Two codes in a byte."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        codes = (grad.reshape(-1, 2) > 0).to(torch.uint8)
        state["packed"] = codes[:, 0] * 16 + codes[:, 1]
        param.sub_(grad, alpha=group["lr"])


class Wrapped(Tensor):
    """A subclass, such as torchao's, which holds numbers in a form of its own."""


class Subclassed(Custom):
    """State in a subclass of tensors."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["moment"] = grad.clone().as_subclass(Wrapped)
        param.sub_(grad, alpha=group["lr"])


class Broken(Custom):
    """An optimizer of which no copy can be tried."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise RuntimeError("there is no network")


class Centered(Custom):
    """Momentum of a gradient without its mean: it is not element-wise."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        param.sub_(moment(state, grad - grad.mean()), alpha=group["lr"])


class Rising(Custom):
    """A second moment that starts at 1, and to which eps is added at every step."""

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        square = state.setdefault("square", torch.ones_like(param)).lerp_(grad**2, 0.1).add_(1e-3)
        param.addcdiv_(grad, square.sqrt(), value=-group["lr"])


class ScheduleFree(Custom):
    """A second sequence of weights that starts at the first weights, and counters that move at every call."""

    def __init__(self, params: Iterable[Any], lr: float = 0.1) -> None:
        super().__init__(params, lr)
        self.calls = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        self.calls += 1
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            group.setdefault("weights", torch.zeros(())).add_(group["k"])
        return super().step(closure)

    def change(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        slow = state.setdefault("z", param.clone()).sub_(grad, alpha=group["lr"])
        param.lerp_(slow, 1 / group["k"])


class Holding(Optimizer):
    """A wrapper around another optimizer, which holds the state."""

    def __init__(self, params: Iterable[Any], lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})
        self.inner = torch.optim.Adam(self.param_groups, lr=lr)
        self.param_groups = self.inner.param_groups

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return self.inner.step(closure)


class Sealed(Holding):
    """A wrapper of which no copy can be made, as those that hold a group of processes."""

    def __init__(self, params: Iterable[Any], lock: Any, lr: float = 0.01) -> None:
        super().__init__(params, lr)
        self.lock = lock


def inverse_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(1e-6) ** -0.25) @ vectors.T


def square_model() -> nn.Sequential:
    """A model with a square layer, and with a layer of one column, whose statistics of rows have its shape."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 70), nn.Tanh(), nn.Linear(70, 70, bias=False), nn.Tanh(), nn.Linear(70, 6))
