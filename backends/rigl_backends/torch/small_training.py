"""A small parameter, trained for some steps by a copy of an optimizer, to see what the optimizer holds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.twin import FirstValues, Path, is_plain, leaves, optimizers_in

_STEPS = 12
"""Enough for state that appears late: many optimizers precondition at every tenth step."""


class Data(NamedTuple):
    """What a small parameter is trained with.

    Attributes:
        weight: the first weights.
        gradients: one of each step.
        quiet: the flat indices of weights whose gradients are 0.
        new: those of them that are 0, as new weights are.
    """

    weight: Tensor
    gradients: Sequence[Tensor]
    quiet: Tensor
    new: Tensor

    def moved(self) -> Data:
        """The same, with rows and columns in another order, and with larger gradients."""
        larger = [1.25 * moved(gradient) for gradient in self.gradients]
        return self._replace(weight=moved(self.weight), gradients=larger)


class UnclearError(ValueError):
    """State of which a probe can say nothing."""


class Seen(NamedTuple):
    """The state of a small training, as it was first stored and after the last step.

    ``rests`` says whether one more step, without a gradient, changes nothing.
    """

    first: Mapping[Path, Tensor]
    last: Mapping[Path, Tensor]
    rests: bool


def make_data(shape: Sequence[int], like: Tensor) -> Data:
    """Numbers for a parameter of a shape, of the device and the dtype of ``like``."""
    generator, size = torch.Generator().manual_seed(0), math.prod(shape)
    order = torch.randperm(size, generator=generator)
    quiet, new = order[: max(size // 4, 1)], order[: max(size // 8, 1)]
    numbers = torch.randn((_STEPS + 1, size), generator=generator)
    numbers[0, new] = 0
    numbers[1:, quiet] = 0
    weight, *gradients = numbers.reshape(-1, *shape).to(like.device, like.dtype)
    return Data(weight, gradients, quiet, new)


def moved(values: Tensor) -> Tensor:
    """The values with rows and columns in another order, a different one for each."""
    return values.flip(0).roll(1, 1) if values.ndim > 1 else values.flip(0)


def train(make: Callable[[nn.Parameter], Optimizer], data: Data, differentiable: bool, with_closure: bool) -> Seen:
    """Train a small parameter with the optimizer that ``make`` makes for it.

    Args:
        make: makes an optimizer.
        data: what to train with.
        differentiable: whether gradients can be differentiated once more.
        with_closure: whether the optimizer evaluates a closure.
    """
    devices = [data.weight.device] if data.weight.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer itself gives its warnings
        small = nn.Parameter(data.weight.clone())
        twin: Any = make(small)
        first = _first(twin, small)
        for gradient in data.gradients:

            def closure(gradient: Tensor = gradient) -> Tensor:
                small.grad = gradient + 0 * small * small if differentiable else gradient.clone()
                return gradient.new_zeros(())

            closure()
            twin.step(*[closure] * with_closure)
            first = {**_first(twin, small), **first}
        last = {path: tensor.detach().clone() for path, tensor in state_in(optimizers_in(twin), small).items()}
        return Seen(first, last, _rests(twin, small, last, with_closure))


def _rests(twin: Any, small: nn.Parameter, last: Mapping[Path, Tensor], with_closure: bool) -> bool:
    weight, small.grad = small.detach().clone(), None
    try:
        twin.step(*[lambda: weight.new_zeros(())] * with_closure)
    except Exception:  # an optimizer may raise anything
        return False
    now = state_in(optimizers_in(twin), small)
    pairs = [(weight, small), *((last[path], now[path]) for path in now if path in last)]
    return now.keys() == last.keys() and all(torch.allclose(one, other, 0, 0, equal_nan=True) for one, other in pairs)


def state_in(parts: Iterable[tuple[Path, Optimizer]], param: nn.Parameter) -> dict[Path, Tensor]:
    """The tensors of a parameter's state in `optimizers_in` an optimizer, with the keys that lead to them."""
    found: dict[Path, Tensor] = {}
    for start, inner in parts:
        if (held := inner.state.get(param)) is not None:
            found |= leaves(held, start)
    return found


def _first(twin: Optimizer, small: nn.Parameter) -> dict[Path, Tensor]:
    """Copies of the state's tensors, as they were first stored if that is known."""
    state = state_in(optimizers_in(twin), small)
    for path, tensor in state.items():
        if not is_plain(tensor):
            raise UnclearError(f"it holds {'.'.join(path)} as a {type(tensor).__name__}")
    first = {path: tensor.detach().clone() for path, tensor in state.items()}
    for path, inner in optimizers_in(twin):
        held = inner.state.get(small)
        if isinstance(held, FirstValues):
            first |= {(*path, *rest): tensor for rest, tensor in held.first.items()}
    return first
