"""An update in NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from contenders.recipes import always_moving, layers_of
from rigl_backends.numpy import SGD, sparsify
from subjects import Kernels, weights_like


class Update:
    """See `contenders.protocol.Update`."""

    def __init__(self, kernels: Kernels) -> None:
        self._gradients = kernels.gradients()
        self._params = {name: weights_like(gradient).copy() for name, gradient in self._gradients.items()}
        self._optimizer = SGD(self._params, lr=0.01, momentum=0.9 * kernels.momentum)
        self._training = sparsify(self._params, self._optimizer, always_moving(), layers=layers_of(kernels))

    def prepare(self) -> None:
        for name, mask in self._training.masks.items():
            np.multiply(weights_like(self._gradients[name]), mask, out=self._params[name])

    def move(self) -> None:
        self._optimizer.step(self._gradients)

    def masks(self) -> Mapping[str, npt.NDArray[np.bool_]]:
        return self._training.masks

    def copies(self) -> object:
        return [gradient.copy() for gradient in self._gradients.values()]
