"""An update of rigl-torch 0.5.2, an implementation for PyTorch from PyPI."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from subjects import DROP_FRACTION, SPARSITY, Kernels, weights_like


def stand_in_for_torchvision() -> None:
    """Let rigl-torch be imported without torchvision, which it only asks whether a module is a block of ResNet."""
    module = ModuleType("torchvision")
    blocks = SimpleNamespace(Bottleneck=type("Bottleneck", (), {}), BasicBlock=type("BasicBlock", (), {}))
    module.models = SimpleNamespace(resnet=blocks)  # type: ignore[attr-defined]
    sys.modules.setdefault("torchvision", module)


class Update:
    """See `contenders.protocol.Update`."""

    def __init__(self, kernels: Kernels) -> None:
        stand_in_for_torchvision()
        from rigl_torch.RigL import RigLScheduler

        self._gradients = [torch.from_numpy(gradient) for gradient in kernels.gradients().values()]
        self._model = nn.ModuleList(map(_Kernel, self._gradients))
        optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9 * kernels.momentum)
        # A uniform sparsity, the only one it has; an update at every other of its steps, the most it allows.
        self._scheduler = RigLScheduler(
            self._model, optimizer, 1 - SPARSITY, T_end=10**9, delta=2, alpha=DROP_FRACTION, ignore_linear_layers=False
        )
        self._names = [name for name, _ in kernels.shapes]

    @torch.no_grad()
    def prepare(self) -> None:
        masks = self._scheduler.backward_masks
        hooks = self._scheduler.backward_hook_objects
        for kernel, gradient, mask, hook in zip(self._model, self._gradients, masks, hooks, strict=True):
            weight = torch.from_numpy(weights_like(gradient.numpy()).copy())
            kernel.weight.copy_(weight if mask is None else weight * mask)
            kernel.weight.grad = gradient.clone()
            if hook is not None:
                hook.dense_grad = gradient
        self._scheduler.step |= 1  # the next step moves the topology

    def move(self) -> None:
        self._scheduler()

    def masks(self) -> Mapping[str, npt.NDArray[np.bool_]]:
        pairs = zip(self._names, self._scheduler.backward_masks, strict=True)
        return {name: mask.numpy().copy() for name, mask in pairs if mask is not None}

    def copies(self) -> object:
        return [gradient.clone() for gradient in self._gradients]


class _Kernel(nn.Module):
    """A module with a weight, which rigl-torch takes for a layer."""

    def __init__(self, gradient: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weights_like(gradient.numpy()).copy()))
