"""An optimizer's state for each weight, its gradients and counters, and the optimizers that leave zeros alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import ASGD, SGD, Adadelta, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from rigl_backends.torch.bits import zero_outside
from rigl_backends.torch.probe import Found, Fresh, probe
from rigl_backends.torch.small_training import state_in
from rigl_backends.torch.twin import is_plain, is_sharded, local, optimizers_in, params_of
from rigl_core.adapter import Layer

_ELEMENT_WISE = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, NAdam, RAdam, ASGD)
"""Where weight and gradient are 0, the weight's step is 0 / (0 + eps) at most, and fresh state stays as it is.

Subclasses may do anything. Adamax writes eps into its state, and Rprop may clamp step sizes.
"""


class WeightState:
    """What an optimizer holds for each weight of a layer, and what it gives a new weight.

    Raises:
        ValueError: naming the layer, if that cannot be told (`rigl_backends.torch.probe`).
    """

    def __init__(self, layer: Layer, optimizer: Optimizer, param: nn.Parameter) -> None:
        self._layer, self._optimizer, self._param = layer, optimizer, param
        if is_sharded(param):  # of which a process holds the state of its shard
            self._layer = replace(layer, shape=(local(param).numel(),), in_axes=(), out_axes=())
        self._parts = tuple(optimizers_in(optimizer))
        self._found = self._probe()
        self.check()

    def resize(self, size: int) -> None:
        """The parameter, which is flat, has another number of weights now."""
        self._layer = replace(self._layer, shape=(size,))

    def check(self) -> None:
        """Refuse state that the probe has not shown, before anything is changed.

        Options may have changed since the probe, for example by a checkpoint, or the size may matter. Then another
        probe shows more.
        """
        for like in (False, True):
            if not (unknown := self._unknown()):
                return
            self._found = self._probe(like=like)
        if self._unknown():
            raise self._refused(f"{unknown} has appeared, of which a copy of the optimizer shows nothing")

    @property
    def rests(self) -> bool:
        """Whether a step of the optimizer changes nothing, and does not fail, where no parameter has a gradient."""
        return self._found.rests

    def arrays(self) -> list[tuple[Tensor, Fresh]]:
        """The arrays that hold one number for each weight, and what a new weight gets in them."""
        return [(local(tensor), fresh) for tensor, fresh in self._held()]

    def tensors(self) -> list[Tensor]:
        """The tensors in the optimizer's state that have these arrays."""
        return [tensor for tensor, _ in self._held()]

    def _held(self) -> list[tuple[Tensor, Fresh]]:
        fresh = self._found.fresh
        state = state_in(self._parts, self._param)
        return [(tensor, fresh[path]) for path, tensor in state.items() if path in fresh]

    def make_fresh_outside(self, mask: Tensor) -> None:
        """Give all weights outside a mask, which has the layer's shape, the state of new weights."""
        for values, fresh in self.arrays() if mask.numel() else ():
            inside = mask.reshape(-1).expand(values.numel() // mask.numel(), -1).reshape(values.shape)
            if fresh == 0:
                zero_outside(values, inside)
            elif fresh is None:
                own = local(self._param).detach().reshape(-1).expand(values.numel() // mask.numel(), -1)
                values.copy_(torch.where(inside, values, own.reshape(values.shape).to(values.dtype)))
            else:
                values.masked_fill_(~inside, fresh)

    def _unknown(self) -> str:
        """The name of an array that may hold numbers of weights, and that the probe has not shown like this."""
        found, size = self._found, self._layer.size
        if not size:
            return ""
        for path, held in state_in(self._parts, self._param).items():
            tensor = local(held)
            whole = tensor.numel() >= size and tensor.numel() % size == 0
            if path in found.fresh:
                known = whole and is_plain(tensor) and tensor.is_floating_point() != isinstance(found.fresh[path], int)
            else:
                known = not whole or path in found.others
            if not known:
                return ".".join(path)
        return ""

    def _probe(self, *, like: bool = False) -> Found:
        try:
            return probe(self._optimizer, self._param, like=like)
        except ValueError as error:
            raise self._refused(str(error)) from error

    def _refused(self, reason: str) -> ValueError:
        return ValueError(
            f"optimizer {type(self._optimizer).__name__} cannot follow a topology that moves in layer "
            f"{self._layer.name!r}: {reason}. Use an optimizer that docs/optimizers.md lists, or exclude the layer."
        )


def gradients_of(optimizer: Optimizer) -> list[tuple[Tensor, Tensor]]:
    """The optimizer's parameters that have a gradient, and these gradients."""
    return [(param, param.grad) for param in params_of(optimizer) if param.grad is not None]


class Counters:
    """The numbers that an optimizer keeps besides the state of its parameters, as they are now.

    Some optimizers count the calls of ``step()`` there. An update takes the place of a step, so it does not count.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._held = [(holder, _numbers_in(holder)) for holder in _holders(optimizer)]

    def restore(self) -> None:
        """Make all numbers what they were."""
        for holder, numbers in self._held:
            for key in _numbers_in(holder).keys() - numbers.keys():
                del holder[key]
            for key, number in numbers.items():
                if isinstance(number, Tensor):
                    holder[key].copy_(number)
                else:
                    holder[key] = number


def _holders(optimizer: Optimizer) -> Iterator[MutableMapping[Any, Any]]:
    for _, inner in optimizers_in(optimizer):
        yield vars(inner)
        yield inner.state
        yield from inner.param_groups


def _numbers_in(holder: MutableMapping[Any, Any]) -> dict[Any, Any]:
    """The numbers under public names; tensors as copies."""
    public = {key: value for key, value in holder.items() if isinstance(key, str) and not key.startswith("_")}
    numbers = {key: value for key, value in public.items() if isinstance(value, int | float | Tensor)}
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in numbers.items()}


def keeps_zeros(optimizer: Optimizer, dtypes: Iterable[torch.dtype]) -> bool:
    """Whether weights that are 0 outside the masks, and their fresh state, stay so in the coming step.

    Their gradients are 0.

    Args:
        optimizer: any.
        dtypes: of the weights: eps must not be 0 in their precision.
    """
    if type(optimizer) not in _ELEMENT_WISE or len(optimizer._optimizer_step_post_hooks) > 1:  # one of them is ours
        return False
    least = max((torch.finfo(dtype).smallest_normal for dtype in dtypes), default=0.0)
    return all(group.get("eps", 1.0) >= least for group in optimizer.param_groups)
