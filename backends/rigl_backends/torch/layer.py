"""Where PyTorch's tensors are that a step of `rigl_core.step.layer` changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch import namespace as torch_namespace
from rigl_backends.torch.bits import bits_of, fits, mask_of, set_bits, zero_outside
from rigl_backends.torch.state import WeightState
from rigl_backends.torch.twin import is_sharded, local
from rigl_core import adapter
from rigl_core.adapter import Connections, Layer, Namespace, Recipe, errors


class SparseLayer(adapter.SparseLayer):
    """One parameter of a model, changed in place, and its topology, which is on the parameter's device.

    Attributes:
        param: the parameter.
        state: what the optimizer holds for each weight.
    """

    xp: Namespace = torch_namespace

    def __init__(self, layer: Layer, recipe: Recipe, param: nn.Parameter, optimizer: Optimizer) -> None:
        super().__init__(layer, recipe)
        self.param = param
        self._optimizer = optimizer
        self._bits = bits_of(torch.ones_like(self.own(param), dtype=torch.bool), self.own(param))
        self._memory: dict[str, Tensor] = {}
        self._seen: list[tuple[int, int]] = []
        self.state = WeightState(layer, optimizer, param)

    # Where the arrays are.

    def own(self, tensor: Tensor) -> Tensor:
        """What this process holds of the parameter, or of a tensor that lies as the parameter does."""
        return tensor

    def shaped(self, array: Tensor) -> Tensor:
        """A flat array of the layer, and perhaps with more axes, with the layer's axes in place of the first one."""
        return array.reshape(*self.layer.shape, *array.shape[1:])

    @property
    def weight(self) -> Tensor:
        return self.own(self.param).detach().reshape(-1)

    @weight.setter
    def weight(self, weight: Tensor) -> None:
        own = self.own(self.param).detach()
        own.copy_(weight.reshape(own.shape))

    @property
    def mask(self) -> Tensor:
        return mask_of(self.bits_for(self.own(self.param))).reshape(-1)

    @mask.setter
    def mask(self, mask: Tensor) -> None:
        bits = self.bits_for(self.own(self.param))
        set_bits(bits, mask.reshape(bits.shape))
        self._seen = []  # weights and state outside the new mask may not be fresh

    @property
    def memory(self) -> dict[str, Tensor]:
        """The arrays on the parameter's device and in its dtype, also after the model moved; momentum is wider."""
        device, dtype, wide = self.param.device, self.param.dtype, _wide(self.param)
        return {kind: array.to(device, wide if kind == "momentum" else dtype) for kind, array in self._memory.items()}

    @memory.setter
    def memory(self, memory: dict[str, Tensor]) -> None:
        self._memory = memory

    def bits_for(self, values: Tensor) -> Tensor:
        """The mask as bits (`rigl_backends.torch.bits`) that fit `own` of the parameter or its gradient, in its shape.

        They are made anew once after the model moved to another device or dtype.
        """
        if not fits(self._bits, values):
            self._bits = bits_of(mask_of(self._bits).to(values.device), values)
        return self._bits

    @property
    def gradient(self) -> Tensor | None:
        """The gradient that the optimizer sees, flat and unscaled; None if the layer was not used."""
        return None if self.param.grad is None else self._unscaled(self.own(self.param.grad))

    def indices(self) -> Tensor:
        return torch.arange(self.layer.size, dtype=torch.int32, device=self.param.device)

    def bring(self, array: Any) -> Any:
        return array.to(self.param.device) if isinstance(array, Tensor) else array

    def zero_weight_outside(self, mask: Tensor) -> None:
        own = self.own(self.param)
        zero_outside(own, mask.reshape(own.shape))

    def zero_state_outside(self, mask: Tensor) -> None:
        self.state.make_fresh_outside(mask)

    def zero_what_is_outside(self) -> None:
        """Zero the weights outside the mask, and make their optimizer state fresh unless they learn there."""
        self.zero_weight_outside(self.bits_for(self.own(self.param)))
        if not self.rule.shadow:
            self.zero_state_outside(self.mask)

    # What a step does.

    def at_start(self, scores: Tensor | None = None) -> Connections:
        return super().at_start(None if scores is None else scores.to(self.param.device, _wide(self.param)))

    def zero_gradient_outside(self) -> None:
        """Set the gradient outside the mask to zero."""
        if self.param.grad is not None:
            own = self.own(self.param.grad)
            zero_outside(own, self.bits_for(own))

    def add_noise(self, step: int) -> None:
        """Add the pull and the noise of the recipe to the gradient."""
        scale = self._scale
        if self.param.grad is not None and self.rule.changes_gradient:
            grad = self.own(self.param.grad).detach()
            noisy = self.noisy(self._unscaled(grad), step).reshape(grad.shape)
            grad.copy_(noisy if scale is None else noisy * scale)

    def remember_writes(self) -> None:
        """After a step: remember how often weights and state, which are fresh outside the mask, have been written."""
        self._seen = self._writes()

    def zero_what_was_written(self) -> None:
        """Before a step: zero weights and state outside the mask, if anyone has written to them since the last step."""
        if self._seen != self._writes():
            self.zero_what_is_outside()

    def check_shape(self) -> None:
        """Refuse a parameter or gradient that is not what the plan was made for."""
        grad = self.param.grad
        for kind, array in (("parameter", self.param), ("gradient", grad)):
            if array is not None and array.shape != self.layer.shape:
                raise errors.wrong_shape(self.layer, kind, tuple(array.shape))
        if grad is not None and grad.layout != torch.strided:
            raise ValueError(
                f"layer {self.layer.name!r} has a sparse gradient tensor: use sparse=False, or exclude the layer."
            )

    @property
    def _scale(self) -> Tensor | None:
        """A gradient scaler's factor, which fused optimizers take out of the gradient inside their step."""
        scale: Tensor | None = getattr(self._optimizer, "grad_scale", None)
        return None if scale is None else scale.to(self.param.device)

    def _unscaled(self, grad: Tensor) -> Tensor:
        scale = self._scale
        return (grad.detach() if scale is None else grad.detach() / scale).reshape(-1)

    def _writes(self) -> list[tuple[int, int]]:
        """Where weights and state are in memory, and how often they were written, as PyTorch counts it."""
        return [writes_to(tensor) for tensor in (self.param, *self.state.tensors())]


def writes_to(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor is in memory, and how often it was written. A DTensor and its shard count on their own."""
    if not is_sharded(tensor):
        return tensor.data_ptr(), tensor._version
    shard = local(tensor)
    return shard.data_ptr(), shard._version + tensor._version


def _wide(tensor: Tensor) -> torch.dtype:
    """The dtype that `widen` gives."""
    return torch.promote_types(tensor.dtype, torch.float32)
