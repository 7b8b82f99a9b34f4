"""An update in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from contenders.recipes import always_moving
from rigl_backends.torch import sparsify
from subjects import Kernels, weights_like


class Update:
    """See `contenders.protocol.Update`."""

    def __init__(self, kernels: Kernels) -> None:
        self._gradients = {name: torch.from_numpy(gradient) for name, gradient in kernels.gradients().items()}
        self._model = nn.Module()
        for name, gradient in self._gradients.items():
            weight = torch.from_numpy(weights_like(gradient.numpy()).copy())
            self._model.register_parameter(name, nn.Parameter(weight))
        self._params = dict(self._model.named_parameters())
        self._optimizer = torch.optim.SGD(self._params.values(), lr=0.01, momentum=0.9 * kernels.momentum)
        self._training = sparsify(self._model, self._optimizer, always_moving(), include=["*"])

    @torch.no_grad()
    def prepare(self) -> None:
        for name, mask in self.masks().items():
            gradient, param = self._gradients[name], self._params[name]
            np.multiply(weights_like(gradient.numpy()), mask, out=param.numpy())
            param.grad = gradient.clone()  # ordinary steps mask it where it lies

    def move(self) -> None:
        self._optimizer.step()

    def masks(self) -> Mapping[str, npt.NDArray[np.bool_]]:
        return {name: mask.numpy() for name, mask in self._training.masks.items()}

    def copies(self) -> object:
        return [gradient.clone() for gradient in self._gradients.values()]
