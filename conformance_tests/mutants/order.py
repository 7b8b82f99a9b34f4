"""Bugs of arrays that are not in C order."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.layer import SparseLayer
from rigl_core.testing.properties import test_order


@caught_by(test_order.test_places_in_memory_change_nothing, "RigL")
def weights_read_in_their_memory_order(patch: pytest.MonkeyPatch) -> None:
    def weight(self: SparseLayer) -> Any:
        return self._optimizer.params[self.layer.name].ravel(order="K")

    patch.setattr(SparseLayer, "weight", property(weight, SparseLayer.weight.fset))


@caught_by(test_order.test_places_in_memory_change_nothing, "RigL")
def zeros_written_into_a_copy(patch: pytest.MonkeyPatch) -> None:
    def zero_outside(values: Any, mask: Any) -> None:
        np.copyto(values.reshape(-1), 0, where=~mask.reshape(-1))

    patch.setattr(importlib.import_module("rigl_backends.numpy.layer"), "zero_outside", zero_outside)
