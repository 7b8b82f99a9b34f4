"""Bugs of the step: gradients, masks, the replaced step."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.budget import after_the_end_as_the_last
from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.layer import SparseLayer
from rigl_backends.numpy.training import SparseTraining
from rigl_core import adapter
from rigl_core.step.clock import Clock
from rigl_core.testing.properties import test_gradients, test_memory, test_training


@caught_by(test_training.test_update_replaces_the_gradient_step)
def gradient_step_also_applied(patch: pytest.MonkeyPatch) -> None:
    original = adapter.SparseTraining.take_step

    def take_step(self: Any, gradients: Any, gradient_step: Callable[[], None], **options: Any) -> None:
        if self._clock.due and self._rule.on_update == "replace":
            gradient_step()
        original(self, gradients, gradient_step, **options)

    patch.setattr(adapter.SparseTraining, "take_step", take_step)


@caught_by(test_training.test_zeros_outside_the_mask_after_every_step)
def masks_not_reapplied_after_the_step(patch: pytest.MonkeyPatch) -> None:
    _step_without_projection(patch, lambda layer, grad: grad)


@caught_by(test_gradients.test_optimizers_that_are_not_element_wise_are_projected)
def no_projection_after_the_step(patch: pytest.MonkeyPatch) -> None:
    _step_without_projection(patch, SparseLayer.zero_outside)


@caught_by(test_training.test_zeros_outside_the_mask_after_every_step)
def momentum_outside_the_mask(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseLayer, "for_optimizer", lambda self, gradient, step: gradient)


@caught_by(test_gradients.test_nothing_outside_the_mask_reaches_the_optimizer)
def gradients_masked_by_multiplication(patch: pytest.MonkeyPatch) -> None:
    def zero_outside(self: SparseLayer, values: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return values * self.mask

    patch.setattr(SparseLayer, "zero_outside", zero_outside)


@caught_by(test_gradients.test_clipping_sees_the_sparse_gradient)
def clipping_sees_the_dense_gradient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseTraining, "mask_gradients", lambda self, grads: dict(grads))


@caught_by(test_training.test_masks_follow_the_oracle_step_by_step)
def growth_by_masked_gradients(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining._step
    patch.setattr(
        SparseTraining, "_step", lambda self, grads: original(self, self._changed(grads, SparseLayer.zero_outside))
    )


@caught_by(test_gradients.test_non_finite_gradients_defer_the_update)
def update_on_non_finite_gradients(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("rigl_backends.numpy.training._all_finite", lambda grads: True)


@caught_by(test_gradients.test_non_finite_gradients_defer_the_update)
def only_the_layers_gradients_checked(patch: pytest.MonkeyPatch) -> None:
    original = importlib.import_module("rigl_backends.numpy.training")._all_finite
    layers = lambda grads: {name: g for name, g in grads.items() if name.endswith("weight")}  # noqa: E731
    patch.setattr("rigl_backends.numpy.training._all_finite", lambda grads: original(layers(grads)))


@caught_by(test_memory.test_momentum_recovers_from_non_finite_gradients)
def update_that_reads_no_gradient_deferred(patch: pytest.MonkeyPatch) -> None:
    original = adapter.SparseTraining.due

    def due(self: Any, gradients: Any, *, finite: Callable[[], bool]) -> int | None:
        update = original(self, gradients, finite=finite)
        return update if finite() else None

    patch.setattr(adapter.SparseTraining, "due", due)


@caught_by(test_gradients.test_non_finite_gradients_defer_the_update)
def deferred_update_never_made(patch: pytest.MonkeyPatch) -> None:
    original = Clock.next
    patch.setattr(Clock, "next", lambda self, waits: original(self, waits=False))


@caught_by(test_gradients.test_non_finite_gradients_defer_the_update)
def deferred_update_made_after_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Clock, "next", lambda self, waits: Clock(self.schedule, self.step + 1, waits))
    after_the_end_as_the_last(patch)


def _step_without_projection(patch: pytest.MonkeyPatch, shown: Callable[[SparseLayer, Any], Any]) -> None:
    """``shown`` makes the optimizer's gradients, and nothing zeroes the weights after the optimizer's step."""

    def gradient_step(self: SparseTraining, grads: Any) -> None:
        type(self._optimizer).step(self._optimizer, self._changed(grads, shown))

    patch.setattr(SparseTraining, "_gradient_step", gradient_step)
