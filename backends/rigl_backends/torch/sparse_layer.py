"""One layer of a PyTorch model and its topology."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.bits import bits_of, fits, keep_active_, mask_of
from rigl_backends.torch.namespace import torch_namespace as xp
from rigl_core import errors
from rigl_core.criteria import Connections
from rigl_core.layers import Layer
from rigl_core.random import INITIAL, random_key
from rigl_core.recipe import Recipe


class SparseLayer:
    """A parameter, its mask, and what the optimizer holds for it.

    Attributes:
        layer: the description.
        active: how many weights are active.
        param: the parameter itself.
    """

    def __init__(self, layer: Layer, active: int, param: nn.Parameter, optimizer: Optimizer) -> None:
        self.layer = layer
        self.active = active
        self.param = param
        self._optimizer = optimizer
        self._bits: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """The topology as a new bool tensor, in the layer's shape."""
        return mask_of(self._fitting_bits(self.param))

    @property
    def gradient(self) -> Tensor | None:
        """The gradient that the optimizer sees, unscaled; None if the layer was not used."""
        scale = getattr(self._optimizer, "grad_scale", None)  # fused optimizers unscale inside their step
        grad = self.param.grad
        return grad if grad is None or scale is None else grad / scale.to(grad.device)

    def initial_mask(self, recipe: Recipe) -> Tensor:
        """The topology to start with, in the layer's shape."""
        connections = self._connections(recipe, INITIAL, None, indices=recipe.initial.reads_random)
        mask: Tensor = recipe.initial_mask(connections, self.active, xp=xp)
        return mask.reshape(self.layer.shape)

    def start(self, mask: Tensor) -> None:
        """Begin with a topology: zeros outside it, also in what the optimizer holds already."""
        self._keep(mask, mask)

    def set_mask(self, mask: Tensor) -> None:
        """Take a topology over. The optimizer's state stays as it is: its own checkpoint restores that."""
        self._bits = bits_of(mask.to(self.param.device), self.param)
        self.mask_weights()

    def mask_gradient(self) -> None:
        """Keep the gradient of the active weights."""
        grad = self.param.grad
        if grad is not None:
            keep_active_(grad, self._fitting_bits(grad))

    def mask_weights(self) -> None:
        """Keep the active weights, whatever the optimizer did to the others."""
        keep_active_(self.param, self._fitting_bits(self.param))

    def move(self, recipe: Recipe, update: int, drop_count: int, gradient: Tensor | None) -> None:
        """The topology update. A layer that was not used, and so has no gradient to grow by, keeps its own."""
        if gradient is None and recipe.reads_gradient:
            return
        connections = self._connections(recipe, update, gradient, indices=recipe.reads_random)
        old = self.mask
        new = recipe.updated_mask(connections, old.reshape(-1), self.active - drop_count, drop_count, xp=xp)
        self._keep(old, new.reshape(self.layer.shape))

    def check_shape(self) -> None:
        """Refuse a parameter or gradient that is not what the plan was made for."""
        grad = self.param.grad
        for kind, array in (("parameter", self.param), ("gradient", grad)):
            if array is not None and tuple(array.shape) != self.layer.shape:
                raise errors.wrong_shape(self.layer, kind, tuple(array.shape))
        if grad is not None and grad.layout != torch.strided:
            raise ValueError(
                f"layer {self.layer.name!r} has a sparse gradient tensor: use sparse=False, or exclude the layer."
            )

    def _connections(self, recipe: Recipe, update: int, gradient: Tensor | None, *, indices: bool) -> Connections:
        weight = self.param.detach().reshape(-1)
        return Connections(
            weight=weight,
            gradient=None if gradient is None else gradient.reshape(-1),
            indices=torch.arange(len(weight), dtype=torch.int32, device=weight.device) if indices else None,
            random_key=random_key(recipe.seed, self.layer.name, update),
        )

    def _keep(self, old: Tensor, new: Tensor) -> None:
        """Take the new topology; zero the weights and every per-weight optimizer state, but for the survivors."""
        survivors = bits_of(old.to(self.param.device) & new.to(self.param.device), self.param)
        keep_active_(self.param, survivors)
        for values in _tensors(self._optimizer.state.get(self.param), self.param.shape):
            keep_active_(values, survivors if fits(survivors, values) else bits_of(mask_of(survivors), values))
        self._bits = bits_of(new, self.param)

    def _fitting_bits(self, values: Tensor) -> Tensor:
        """The mask for these values, made anew once after the model moved to another device or dtype."""
        assert self._bits is not None
        if not fits(self._bits, values):
            self._bits = bits_of(mask_of(self._bits).to(values.device), values)
        return self._bits


def _tensors(state: Any, shape: torch.Size) -> Iterator[Tensor]:
    """The tensors of one shape in an optimizer's state, however it nests them."""
    if isinstance(state, Tensor):
        if state.shape == shape:
            yield state
    elif isinstance(state, Mapping | list | tuple):
        for value in state.values() if isinstance(state, Mapping) else state:
            yield from _tensors(value, shape)
