"""Weights that a topology has zeroed, kept while a checkpoint is being loaded."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from rigl_backends.torch.layer import SparseLayer
from rigl_backends.torch.twin import is_sharded


class Kept:
    """The weights as they were before `sparsify`, or a load, zeroed those outside the masks; until the next step.

    Tools load the parts of a checkpoint in any order, some of them twice. So a load first brings the weights back that
    are only zeroed because of the topology before it.

    Attributes:
        loaded: whether a topology has been loaded since the last step.
        expected: by layer name, how many weights are not 0 in the checkpoint whose topology is being loaded, if known.
    """

    def __init__(self) -> None:
        self._weights: dict[SparseLayer, Tensor] = {}
        self.loaded = False
        self.expected: dict[str, int | None] = {}

    def __bool__(self) -> bool:
        return bool(self._weights)

    def keep(self, layers: Collection[SparseLayer], *, loaded: bool) -> None:
        """Bring back the weights that were zeroed, and keep all weights."""
        self.loaded = loaded
        for layer in layers:
            if self._is_only_masked(layer) and not self._is_expected(layer):
                layer.weight = self._kept(layer)
            else:
                self._weights[layer] = layer.weight.clone()
        self.expected = {}

    def lost(self) -> dict[str, int]:
        """The numbers of weights that a load zeroed, by layer name, where no other weights have been loaded since."""
        layers = [layer for layer in self._weights if self.loaded and self._is_only_masked(layer)]
        return {layer.layer.name: int((self._kept(layer) != 0)[~layer.mask].sum()) for layer in layers}

    def forget(self) -> None:
        """A step is made with the weights as they are."""
        self._weights.clear()
        self.loaded = False

    def _is_only_masked(self, layer: SparseLayer) -> bool:
        """Whether the weights are those kept, but for zeros outside the mask. Moving a model writes weights, too."""
        if layer not in self._weights:
            return False
        return torch.equal(layer.weight, self._kept(layer).where(layer.mask, 0))

    def _is_expected(self, layer: SparseLayer) -> bool:
        """Whether the weights lack nothing of the checkpoint's, and so may be its own."""
        expected = self.expected.get(layer.layer.name)
        return expected is not None and expected == nonzero_in(layer.param)

    def _kept(self, layer: SparseLayer) -> Tensor:
        return self._weights[layer].to(layer.param.device, layer.param.dtype)


def nonzero_in(param: Tensor) -> int | None:
    """The number of weights that are not 0; None for shards, whose processes would have to ask at the same time."""
    return None if is_sharded(param) else int(param.count_nonzero())
