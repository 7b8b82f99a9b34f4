"""One parameter of a PyTorch model, its topology, and what the optimizer and the method hold for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.bits import bits_of, fits, keep_active_, keep_only_, mask_of, set_bits_
from rigl_backends.torch.namespace import torch_namespace as xp
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.memory import first_memory, memory_after, observe, whole_weight
from rigl_core.arrays.noise import GRADIENT_NOISE, noisy_gradient
from rigl_core.arrays.random import INITIAL, random_key
from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe
from rigl_core.step import errors
from rigl_core.step.update import Moved, weights_after


class SparseLayer:
    """A layer's part in a sparse training.

    Attributes:
        layer: the description.
        param: the parameter itself.
    """

    def __init__(self, layer: Layer, recipe: Recipe, param: nn.Parameter, optimizer: Optimizer) -> None:
        self.layer = layer
        self.param = param
        self._recipe = recipe
        self._optimizer = optimizer
        self._bits: Tensor | None = None
        self._memory: dict[str, Tensor] = {}
        self._left: list[tuple[int, int]] = []

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def mask(self) -> Tensor:
        """The topology as a new bool tensor, in the layer's shape."""
        return mask_of(self._fitting_bits(self.param))

    @property
    def memory(self) -> dict[str, Tensor]:
        """What the recipe remembers of each connection (`rigl_core.arrays.memory`), flat; it follows the parameter."""
        dtype, wide = self.param.dtype, _wide(self.param)
        return {
            kind: array.to(self.param.device, wide if kind == "momentum" else dtype)
            for kind, array in self._memory.items()
        }

    @property
    def gradient(self) -> Tensor | None:
        """The gradient that the optimizer sees, unscaled; None if the layer was not used."""
        grad, scale = self.param.grad, self._scale
        return None if grad is None else grad.detach() if scale is None else grad.detach() / scale

    def start(self, mask: Tensor) -> None:
        """Begin with a topology: zeros outside it, also in what the optimizer holds already."""
        kinds, mask = self._recipe.memories, mask.to(self.param.device)
        connections = self.connections(INITIAL, indices="sign" in kinds)
        self._memory = first_memory(kinds, connections, mask.reshape(-1), xp=xp)
        self.set_mask(mask)
        self._zero_state(mask)

    def set_mask(self, mask: Tensor) -> None:
        """Take a topology over. The optimizer's state stays as it is: its own checkpoint restores that."""
        self._bits = bits_of(mask, self.param)
        self.mask_weights()

    def set_memory(self, memory: Mapping[str, Any]) -> None:
        """Take over what was remembered, as copies."""
        self._memory = {kind: _tensor(array).clone() for kind, array in memory.items()}

    def observe(self) -> None:
        """Remember what a step's dense gradient tells."""
        gradient = self.gradient if "momentum" in self._memory else None
        if gradient is not None:
            self._memory = observe(self.memory, gradient.reshape(-1), self._recipe.momentum, xp=xp)

    def mask_gradient(self) -> None:
        """Keep the gradient of the active weights."""
        grad = self.param.grad
        if grad is not None:
            keep_active_(grad, self._fitting_bits(grad))

    def add_noise(self, step: int) -> None:
        """Add to the gradient of active weights what the recipe adds to it."""
        gradient, scale = self.gradient, self._scale
        if gradient is None or self.param.grad is None:
            return
        connections = self.connections(GRADIENT_NOISE, gradient, indices=self._recipe.noise > 0)
        noisy = noisy_gradient(connections, self._recipe.l1, self._recipe.noise, step, xp=xp).reshape(gradient.shape)
        self.param.grad.detach().copy_(noisy if scale is None else noisy * scale)
        self.mask_gradient()

    def leave_zeros(self) -> None:
        """After a step, with zeros everywhere outside the mask: remember how weights and state were left."""
        self._left = self._marks()

    def find_zeros(self) -> None:
        """Before a step: zero what is outside the mask, if anything was written since the last one."""
        if self._left != self._marks():
            self.mask_weights()
            self._zero_state(self.mask)

    def show_shadow(self) -> None:
        """Before the optimizer's step: weights outside the mask take part in it."""
        if "shadow" in self._memory:
            self._set_weight(self._whole_weight())

    def hide_shadow(self) -> None:
        """After it: remember those weights."""
        if "shadow" in self._memory:
            flat = self.mask.reshape(-1)
            self._memory = memory_after(self.memory, Connections(self._weight), flat, flat, xp=xp)

    def mask_weights(self) -> None:
        """Keep the active weights, whatever happened to the others."""
        keep_active_(self.param, self._fitting_bits(self.param))

    def connections(
        self, update: int, gradient: Tensor | None = None, *, indices: bool, scores: Any = None
    ) -> Connections:
        """All connections at an update, or before the first; without a gradient it counts as 0."""
        weight = self._whole_weight()
        if gradient is None and self._recipe.reads_gradient and update != INITIAL:
            gradient = torch.zeros_like(weight)
        return Connections(
            weight,
            None if gradient is None else gradient.reshape(-1),
            torch.arange(len(weight), dtype=torch.int32, device=weight.device) if indices else None,
            random_key(self._recipe.seed, self.name, update),
            scores=None if scores is None else _tensor(scores).to(weight.device, _wide(weight)).reshape(-1),
            layer=self.layer,
            **{kind: array for kind, array in self.memory.items() if kind != "shadow"},
        )

    def move_to(self, connections: Connections, moved: Moved) -> None:
        """Take an update over: topology, weights, optimizer state and memory."""
        moved = Moved(moved.mask.to(self.param.device), moved.survivors.to(self.param.device))
        survivors = moved.survivors.reshape(self.layer.shape)
        if self._recipe.grows_from_zero:
            keep_only_(self.param, survivors)
        else:
            self._set_weight(weights_after(self._recipe, connections, self.mask.reshape(-1), moved, xp=xp))
        self._memory = memory_after(self.memory, connections, moved.mask, moved.survivors, xp=xp)
        set_bits_(self._fitting_bits(self.param), moved.mask.reshape(self.layer.shape))
        self._zero_state(survivors)

    def check_shape(self) -> None:
        """Refuse a parameter or gradient that is not what the plan was made for."""
        grad = self.param.grad
        for kind, array in (("parameter", self.param), ("gradient", grad)):
            if array is not None and tuple(array.shape) != self.layer.shape:
                raise errors.wrong_shape(self.layer, kind, tuple(array.shape))
        if grad is not None and grad.layout != torch.strided:
            raise ValueError(
                f"layer {self.name!r} has a sparse gradient tensor: use sparse=False, or exclude the layer."
            )

    @property
    def _scale(self) -> Tensor | None:
        """A gradient scaler's factor, which fused optimizers take out of the gradient inside their step."""
        scale, grad = getattr(self._optimizer, "grad_scale", None), self.param.grad
        return None if scale is None or grad is None else scale.to(grad.device)

    @property
    def _weight(self) -> Tensor:
        return self.param.detach().reshape(-1)

    def _whole_weight(self) -> Tensor:
        if "shadow" not in self._memory:
            return self._weight
        whole: Tensor = whole_weight(self._weight, self.memory, self.mask.reshape(-1), xp=xp)
        return whole

    def _set_weight(self, flat: Tensor) -> None:
        self.param.detach().copy_(flat.reshape(self.layer.shape))

    def _marks(self) -> list[tuple[int, int]]:
        """Where the weights and their state are, and how often they were written."""
        held = _tensors(self._optimizer.state.get(self.param), self.param.shape)
        return [(tensor.data_ptr(), tensor._version) for tensor in (self.param, *held)]

    def _zero_state(self, survivors: Tensor) -> None:
        """Zero every per-weight optimizer state, but for the survivors; that of shadow weights stays."""
        if "shadow" not in self._memory:
            for values in _tensors(self._optimizer.state.get(self.param), self.param.shape):
                keep_only_(values, survivors)

    def _fitting_bits(self, values: Tensor) -> Tensor:
        """The mask for these values, made anew once after the model moved to another device or dtype."""
        assert self._bits is not None
        if not fits(self._bits, values):
            self._bits = bits_of(mask_of(self._bits).to(values.device), values)
        return self._bits


def _wide(tensor: Tensor) -> torch.dtype:
    """That of `Namespace.widen`."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _tensor(array: Any) -> Tensor:
    return array.detach() if isinstance(array, Tensor) else torch.tensor(np.asarray(array))


def _tensors(state: Any, shape: torch.Size) -> Iterator[Tensor]:
    """The tensors of one shape in an optimizer's state, however it nests them."""
    if isinstance(state, Tensor):
        if state.shape == shape:
            yield state
    elif isinstance(state, Mapping | list | tuple):
        for value in state.values() if isinstance(state, Mapping) else state:
            yield from _tensors(value, shape)
