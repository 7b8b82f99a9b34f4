"""Other writers of the weights: what they leave outside the masks (P4), and steps that pass the training by (P5)."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from rigl_backends.torch.active import ActiveLayer
from rigl_backends.torch.layer import SparseLayer, writes_to
from rigl_backends.torch.twin import is_sharded, params_of
from rigl_core.adapter import SparsityWarning, errors

_NEVER = (0, 0)


class _Weights:
    """A layer's weights, and the writes to them that PyTorch counts. It does not count those through ``.data``."""

    def __init__(self, layer: SparseLayer | ActiveLayer) -> None:
        self.layer = layer
        self.settle()

    def settle(self) -> None:
        """What the weights are now is the work of a step, or of a load."""
        self._settled, self._between = self._writes, 0
        self._told = self._at_backward = _NEVER

    @property
    def _writes(self) -> tuple[int, int]:
        """Where the weights are in memory, and how often they were written."""
        return writes_to(self.layer.param)

    def outside(self, *, thorough: bool) -> int:
        """The number of weights outside the mask; 0 if it was told. ``thorough`` finds writes through ``.data`` too."""
        writes = self._writes
        if writes == self._told or (writes == self._settled and not thorough):
            return 0
        count = self.layer.outside
        if count:
            self._told = writes
        else:
            self._settled = writes
        return count

    def on_backward(self) -> int:
        """A gradient has come: the number that `passed` is now."""
        writes = self._writes
        self._between += self._at_backward not in (_NEVER, writes)
        self._at_backward = writes
        return self._between

    @property
    def passed(self) -> int:
        """How often the weights were written after a backward pass, since they were settled."""
        return self._between + (self._at_backward not in (_NEVER, self._writes))


class Watch:
    """Tells users what other code does to the weights of a sparse training. Each occasion is told once.

    Args:
        model: the model.
        layers: its sparse layers.
        optimizers: those of the training.
        step: gives the number of the training's coming step.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[SparseLayer | ActiveLayer],
        optimizers: Collection[Optimizer],
        step: Callable[[], int],
    ) -> None:
        self._model, self._optimizers, self._step = model, optimizers, step
        self._weights = {layer.param: _Weights(layer) for layer in layers}
        self._strangers: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
        self.settle()
        _listen()
        _WATCHES.add(self)

    def settle(self) -> None:
        """After a step or a load: what the weights are now is right."""
        for weights in self._weights.values():
            weights.settle()
        self._steps_of_others, self._told = 0, False

    def end(self) -> None:
        """Tell nothing more."""
        _WATCHES.discard(self)

    def tell_outside(self, lost: Mapping[str, int] | None = None, *, thorough: bool) -> None:
        """Tell of weights outside the masks, and of those that were ``lost`` there."""
        counts = {weights.layer.layer.name: weights.outside(thorough=thorough) for weights in self._weights.values()}
        counts = {name: count + (lost or {}).get(name, 0) for name, count in counts.items()}
        if any(counts.values()):
            self._warn(errors.weights_outside(counts))

    def on_look(self) -> None:
        """A user looks at the training: tell if the weights go on without it."""
        if any(weights.passed for weights in self._weights.values()):
            self._tell(errors.passed_by(self._step()))
        self._tell_replaced()

    def on_backward(self, param: nn.Parameter) -> None:
        """A gradient has come. SAM, too, writes the weights between two backward passes, but once in a step."""
        if self._weights[param].on_backward() > 1:
            self._tell(errors.passed_by(self._step()))

    def on_step(self, lost: Mapping[str, int]) -> None:
        """The training makes a step: tell of weights outside, and if the model has parameters in place of ours."""
        self.tell_outside(lost, thorough=False)
        if any(param.grad is None for param in self._weights):
            self._refuse_shards()
            self._tell_replaced()

    def follows(self, optimizer: Optimizer) -> bool:
        """Whether this is an optimizer of the training."""
        return any(optimizer is own for own in self._optimizers)

    def on_step_of_any(self, optimizer: Optimizer, held: Set[nn.Parameter], *, followed: bool) -> None:
        """Some optimizer makes a step: one that holds the model's layers should not do so without ours.

        Args:
            optimizer: the optimizer.
            held: its parameters.
            followed: whether it is the optimizer of some training; then this one may be over.
        """
        if self.follows(optimizer):
            return
        if held.isdisjoint(self._weights) and (followed or not self._holds_others_of_the_model(optimizer, held)):
            return
        self._refuse_shards()
        self._steps_of_others += 1
        if self._steps_of_others > 1:
            self._tell_replaced()
            self._tell(errors.passed_by(self._step()))

    def _holds_others_of_the_model(self, optimizer: Optimizer, held: Set[nn.Parameter]) -> bool:
        """Whether the model has parameters in place of ours, which the optimizer holds.

        The model is searched at the first steps of an optimizer, and then ever more rarely, unless it was found once:
        it is the optimizer of another model as a rule, and there can be many.
        """
        steps = self._strangers[optimizer] = self._strangers.get(optimizer, 0) + 1
        if steps & (steps - 1) and not self._steps_of_others:  # no power of two
            return False
        return bool(self._replaced()) and not held.isdisjoint(self._model.parameters())

    def _refuse_shards(self) -> None:
        """Refuse a step of parameters that were sharded after `sparsify`: nobody shards a model to train it densely."""
        new = {name for name, param in self._model.named_parameters() if is_sharded(param)}
        if names := [name for name in self._replaced() if name in new]:
            raise ValueError(errors.resharded(names))

    def _tell_replaced(self) -> None:
        if lost := self._replaced():
            self._tell(errors.replaced(lost, self._step()))

    def _replaced(self) -> list[str]:
        """The names of layers whose parameter is no longer the model's."""
        held = set(self._model.parameters())
        return [weights.layer.layer.name for param, weights in self._weights.items() if param not in held]

    def _tell(self, message: str) -> None:
        if not self._told:
            self._told = True
            self._warn(message)

    def _warn(self, message: str) -> None:
        warnings.warn(message, SparsityWarning, stacklevel=4)


_WATCHES: weakref.WeakSet[Watch] = weakref.WeakSet()


@functools.cache
def _listen() -> None:
    """Hear of the steps of all optimizers."""

    def on_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_compiling():
            held, watches = set(params_of(optimizer)), list(_WATCHES)
            followed = any(watch.follows(optimizer) for watch in watches)
            for watch in watches:
                watch.on_step_of_any(optimizer, held, followed=followed)

    register_optimizer_step_pre_hook(on_step)
