"""A `SparseModule` in a sparse training: its arrays, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.active_conv import SparseConv2d
from rigl_backends.torch.active_linear import SparseLinear
from rigl_backends.torch.active_module import SparseModule
from rigl_backends.torch.layer import SparseLayer
from rigl_backends.torch.link import Floats, Sample
from rigl_backends.torch.moving import common, is_same, moved, write
from rigl_backends.torch.state import WeightState
from rigl_backends.torch.twin import is_sharded
from rigl_core import adapter
from rigl_core.adapter import ActiveOnly, Index, Layer, Move, Plan, Recipe, errors, places_in


class ActiveLayer(adapter.ActiveLayer):
    """A `SparseModule` and what the optimizer holds for its weights.

    Attributes:
        module: the module.
        param: its weight.
        state: what the optimizer holds for each weight.
    """

    def __init__(self, layer: Layer, recipe: Recipe, module: SparseModule, optimizer: Optimizer) -> None:
        self.module, self.param, self._optimizer = module, module.weight, optimizer
        self._moved: Move | None = None
        self._seen: tuple[Tensor | None, int] = (None, 0)
        self._resizes = recipe.ramp is not None
        super().__init__(layer, recipe, module.index)
        self.state = WeightState(self._flat_layer(), optimizer, self.param)

    def _flat_layer(self) -> Layer:
        """The layer as the parameter holds it."""
        return replace(self.layer, shape=(self.index.size,), in_axes=(), out_axes=())

    # Where the arrays are.

    @property
    def index(self) -> Index:
        """Where the weights are."""
        return self.module.index

    @index.setter
    def index(self, index: Index) -> None:
        if index is not self.module.index:
            self.module.take_index(index)

    @property
    def weight(self) -> Floats:
        return self.param.detach().numpy()

    @property
    def memory(self) -> dict[str, Any]:
        return {kind: torch.from_numpy(array) for kind, array in super().memory.items()}

    @memory.setter
    def memory(self, memory: Mapping[str, Any]) -> None:
        self.take_memory(memory)

    @property
    def outside(self) -> int:
        """The numbers of a dense weight that was loaded which lie outside the mask and are not 0."""
        loaded = self.module.loaded
        return 0 if loaded is None else int(np.count_nonzero(loaded) - np.count_nonzero(self.index.values(loaded)))

    def flat(self, array: Any) -> Any:
        """An array of the layer's shape, NumPy's or a tensor, as the core sees it."""
        return array.reshape(-1)

    def shaped(self, array: Tensor) -> Tensor:
        """A mask, flat, in the layer's shape; memory stays flat."""
        return array.reshape(self.layer.shape) if array.dtype == torch.bool else array

    def take_move(self, move: Move, weight: Floats) -> None:
        self._write(move, weight, with_state=True)
        self._moved = move

    def _write(self, move: Move, weight: Floats, *, with_state: bool) -> None:
        """Write the weights after a move, and let the optimizer's state follow, if it is not there already."""
        new = torch.from_numpy(weight)
        for values, fresh in self.state.arrays() if with_state else ():
            write(values, moved(values, move, new if fresh is None else fresh))
        write(self.param, new)
        self.state.resize(weight.size)

    def take_places(self, index: Index, *, with_state: bool) -> None:
        """Take other places, as a checkpoint has them: what has the same place keeps its weight, others get 0.

        Args:
            index: the places.
            with_state: whether the optimizer's state moves too; if not, the caller has loaded it.
        """
        move = Move(index, *common(self.index, index))
        self._write(move, move.of(self.weight, 0), with_state=with_state)
        self.index = index

    def resume(self, mask: Any, remembered: dict[str, Any]) -> None:
        index = self.index.like(places_in(mask))
        if not is_same(index, self.index):
            self.take_places(index, with_state=False)
        if self.module.loaded is not None:
            write(self.param, torch.from_numpy(index.values(self.module.loaded)))
        self.memory = remembered

    def follow(self, index: Index) -> None:
        """The model loads weights with other places."""
        if not is_same(index, self.index):
            self.take_places(index, with_state=True)

    # The gradient.

    @property
    def gradient(self) -> Any:
        """The gradient that the optimizer sees, with the samples that define the dense one; None if there is none."""
        grad = self.param.grad
        if grad is None:
            return None
        scale: Tensor | None = getattr(self._optimizer, "grad_scale", None)
        active = (grad.detach() if scale is None else grad.detach() / scale).numpy()
        is_known = self.rule.reads_gradient and self._seen[0] is grad  # and not given by hand
        samples, replicas = self._samples() if is_known else ([], 1)
        if not samples:
            return ActiveOnly(active, self.layer.name)
        gradient = self.module.products(active, samples)
        return gradient if replicas == 1 else replace_active(gradient * (1 / replicas), active)

    def _samples(self) -> tuple[list[Sample], int]:
        """The samples of the step, of all replicas, call after call; and the number of replicas."""
        link = self.module.link
        own = [sample for _, sample in sorted(link.samples, key=lambda sample: sample[0])]
        if link.replicas is None:
            return own, 1
        everyone: list[Any] = [None] * dist.get_world_size(link.replicas)
        dist.all_gather_object(everyone, own, group=link.replicas)
        return [sample for samples in everyone for sample in samples], len(everyone)

    def on_gradient(self) -> None:
        """After backward() has accumulated a gradient: the samples of this pass belong to it."""
        self.module.link.accumulate()
        grad = self.param.grad
        self._seen = (grad, 0 if grad is None else grad._version)

    def listen(self, reads_gradients: Callable[[], bool]) -> None:
        """Let the module ask, in backward(), whether samples are to be kept, and tell of other places."""

        def reads_samples() -> bool:
            self._forget_zeroed()
            return reads_gradients()

        link = self.module.link
        link.reads_samples, link.on_index, link.resizes = reads_samples, self.follow, self._resizes

    def _forget_zeroed(self) -> None:
        """Forget the samples of a gradient that a user has zeroed."""
        (seen, version), grad = self._seen, self.param.grad
        if seen is not None and (grad is not seen or (grad._version != version and not grad.any())):
            self.module.link.samples.clear()
            self._seen = (None, 0)

    def after_step(self) -> None:
        """A step has been made: what was for it is gone."""
        self.module.link.samples.clear()
        self.module.loaded, self._seen = None, (None, 0)
        if self.param.grad is not None:
            self.param.grad = self.gradient_after(self.param.grad)
        self._moved = None

    def gradient_after(self, gradient: Tensor) -> Tensor:
        """A gradient of the active weights from before an update, by the places after it."""
        move, self._moved = self._moved, None
        return gradient if move is None else moved(gradient, move, 0)

    def add_noise(self, step: int) -> None:
        """Add the pull and the noise of the recipe to the gradient."""
        if self.param.grad is not None and self.rule.changes_gradient:
            self.param.grad.copy_(torch.from_numpy(self.noisy(self.param.grad.numpy(), step)))

    # What layers with masks do besides.

    def check_shape(self) -> None:
        """Refuse a parameter or gradient of another length than the places."""
        for kind, array in (("parameter", self.param), ("gradient", self.param.grad)):
            if array is not None and tuple(array.shape) != (self.index.size,):
                raise errors.wrong_shape(self._flat_layer(), kind, tuple(array.shape))


KINDS: Mapping[type[nn.Module], type[SparseModule]] = {nn.Linear: SparseLinear, nn.Conv2d: SparseConv2d}
"""What modules become. A subclass may do other things, so it is none of them."""


def become_active(layer: Layer, module: Any, index: Index, state: WeightState) -> None:
    """Hold the active weights of a module, and the optimizer's state for them, in place of the dense ones."""
    weight = torch.from_numpy(index.values(module.weight.detach().numpy()))
    flat = torch.from_numpy(index.flat())
    for values, _ in state.arrays():
        write(values, values.detach().reshape(-1, layer.size)[:, flat].reshape(-1))
    KINDS[type(module)].become(module, index, weight)


def layers_in(
    plan: Plan, model: nn.Module, params: Sequence[nn.Parameter], optimizer: Optimizer
) -> tuple[dict[int, SparseLayer], dict[int, ActiveLayer]]:
    """The plan's layers with masks, and those whose modules hold active weights, by their positions."""
    active = {}
    for i in plan.sparse_layers:
        module = model.get_submodule(plan.layers[i].name.rpartition(".")[0])
        if isinstance(module, SparseModule):
            active[i] = ActiveLayer(plan.layers[i], plan.recipe, module, optimizer)
    others = [i for i in plan.sparse_layers if i not in active]
    return {i: _with_mask(plan.layers[i], plan.recipe, params[i], optimizer) for i in others}, active


def _with_mask(layer: Layer, recipe: Recipe, param: nn.Parameter, optimizer: Optimizer) -> SparseLayer:
    if not is_sharded(param):
        return SparseLayer(layer, recipe, param, optimizer)
    from rigl_backends.torch.sharded import ShardedLayer  # only who has shards waits for the import of DTensors

    return ShardedLayer(layer, recipe, param, optimizer)


def kept(gradient: Any) -> Any:
    """A copy of a gradient, of active weights or dense."""
    return gradient.clone() if isinstance(gradient, Tensor) else replace_active(gradient, gradient.active.copy())


def replace_active(gradient: Any, active: Floats) -> Any:
    """The gradient, with other numbers of active weights."""
    own = copy(gradient)
    own.active = active
    return own
