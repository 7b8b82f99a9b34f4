"""Bugs of what other code writes outside the masks, and of layers of one axis."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy import SGD, Adam
from rigl_backends.numpy.layer import SparseLayer
from rigl_core.step.workers import zero_outside
from rigl_core.testing.properties import test_outside


@caught_by(test_outside.test_what_is_written_outside_is_gone_after_the_next_update)
def optimizers_that_keep_zeros_are_trusted(patch: pytest.MonkeyPatch) -> None:
    """Only connections that an update drops become zero, unless the optimizer is none that leaves zeros alone."""
    zero, start = SparseLayer.zero_weight_outside, SparseLayer.start

    def zero_weight_outside(self: SparseLayer, mask: Any) -> None:
        trusted = type(self._optimizer) in (SGD, Adam) and not self.rule.shadow
        zero(self, mask | ~self.mask if trusted else mask)

    def start_with_zeros(self: SparseLayer, connections: Any, mask: Any) -> None:
        start(self, connections, mask)
        zero(self, mask)

    patch.setattr(SparseLayer, "zero_weight_outside", zero_weight_outside)
    patch.setattr(SparseLayer, "start", start_with_zeros)


@caught_by(test_outside.test_layers_of_one_axis)
def vectors_stay_dense(patch: pytest.MonkeyPatch) -> None:
    def zero_outside_matrices(values: Any, mask: Any) -> None:
        if values.ndim > 1:
            zero_outside(values, mask)

    patch.setattr(importlib.import_module("rigl_backends.numpy.layer"), "zero_outside", zero_outside_matrices)
