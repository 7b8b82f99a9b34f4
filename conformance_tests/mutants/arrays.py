"""Bugs of adapters that hold on to the first arrays."""

from __future__ import annotations

from typing import Any

import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.layer import SparseLayer
from rigl_core.adapter import zero_outside
from rigl_core.testing.properties import test_arrays


@caught_by(test_arrays.test_new_arrays_with_the_same_values_change_nothing, "RigL")
def the_first_array_is_masked(patch: pytest.MonkeyPatch) -> None:
    """A new array takes part in everything but the zeros after a step and at an update."""
    original = SparseLayer.__init__

    def remember(self: Any, layer: Any, recipe: Any, optimizer: Any) -> None:
        original(self, layer, recipe, optimizer)
        self.first = optimizer.params[layer.name]

    def zero_weight_outside(self: Any, mask: Any) -> None:
        zero_outside(self.first, mask.reshape(self.layer.shape))

    patch.setattr(SparseLayer, "__init__", remember)
    patch.setattr(SparseLayer, "zero_weight_outside", zero_weight_outside)


@caught_by(test_arrays.test_new_arrays_with_the_same_values_change_nothing, "DNW")
def the_first_array_learns(patch: pytest.MonkeyPatch) -> None:
    """Shadow weights go into an array that the optimizer no longer has."""
    original, weight = SparseLayer.__init__, SparseLayer.weight

    def remember(self: Any, layer: Any, recipe: Any, optimizer: Any) -> None:
        original(self, layer, recipe, optimizer)
        self.first = optimizer.params[layer.name]

    def write(self: Any, values: Any) -> None:
        self.first[...] = values.reshape(self.layer.shape)

    patch.setattr(SparseLayer, "__init__", remember)
    patch.setattr(SparseLayer, "weight", property(weight.fget, write))  # type: ignore[attr-defined]
