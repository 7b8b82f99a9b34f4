"""Bugs of the step: gradients, masks, the replaced step."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.sparse_layer import SparseLayer
from rigl_backends.numpy.training import SparseTraining
from rigl_core.step import clock
from rigl_core.testing.properties import test_gradients, test_training


@caught_by(test_training.test_update_replaces_the_gradient_step)
def gradient_step_also_applied(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining._step

    def step(self: SparseTraining, grads: Any) -> None:
        if self._clock.due is not None:
            type(self._optimizer).step(self._optimizer, self._masked(grads))
        original(self, grads)

    patch.setattr(SparseTraining, "_step", step)


@caught_by(test_training.test_zeros_outside_the_mask_after_every_step)
def masks_not_reapplied_after_the_step(patch: pytest.MonkeyPatch) -> None:
    _step_without_projection(patch, lambda self, grads: grads)


@caught_by(test_gradients.test_optimizers_that_are_not_element_wise_are_projected)
def no_projection_after_the_step(patch: pytest.MonkeyPatch) -> None:
    _step_without_projection(patch, SparseTraining._masked)


@caught_by(test_training.test_zeros_outside_the_mask_after_every_step)
def momentum_outside_the_mask(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseTraining, "_masked", lambda self, grads: dict(grads))


@caught_by(test_gradients.test_nothing_outside_the_mask_reaches_the_optimizer)
def gradients_masked_by_multiplication(patch: pytest.MonkeyPatch) -> None:
    def masked(self: SparseTraining, grads: Mapping[str, Any]) -> dict[str, Any]:
        with np.errstate(invalid="ignore"):
            return {name: g if name not in self.masks else g * self.masks[name] for name, g in grads.items()}

    patch.setattr(SparseTraining, "_masked", masked)
    patch.setattr(SparseLayer, "hide_shadow", lambda self: None)


@caught_by(test_gradients.test_clipping_sees_the_sparse_gradient)
def clipping_sees_the_dense_gradient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseTraining, "mask_gradients", lambda self, grads: dict(grads))


@caught_by(test_training.test_masks_follow_the_oracle_step_by_step)
def growth_by_masked_gradients(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining._step
    patch.setattr(SparseTraining, "_step", lambda self, grads: original(self, self._masked(grads)))


@caught_by(test_gradients.test_non_finite_gradients_defer_the_update)
def update_on_non_finite_gradients(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("rigl_backends.numpy.training._all_finite", lambda grads: True)


@caught_by(test_gradients.test_non_finite_gradients_defer_the_update)
def only_the_layers_gradients_checked(patch: pytest.MonkeyPatch) -> None:
    original = importlib.import_module("rigl_backends.numpy.training")._all_finite
    layers = lambda grads: {name: g for name, g in grads.items() if name.endswith("weight")}  # noqa: E731
    patch.setattr("rigl_backends.numpy.training._all_finite", lambda grads: original(layers(grads)))


@caught_by(test_gradients.test_non_finite_gradients_defer_the_update)
def deferred_update_never_made(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(clock.Clock, "defer", lambda self: None)


@caught_by(test_gradients.test_unused_layers_keep_their_topology)
def unused_layer_grows_at_the_lowest_indices(patch: pytest.MonkeyPatch) -> None:
    original = SparseTraining._move

    def move(self: SparseTraining, number: int, update: int, grads: Mapping[str, Any]) -> None:
        zeros = {layer.name: np.zeros(layer.shape, np.float32) for layer in self.plan.layers}
        original(self, number, update, {name: zeros[name] if g is None else g for name, g in grads.items()})

    patch.setattr(SparseTraining, "_move", move)


def _step_without_projection(patch: pytest.MonkeyPatch, seen: Callable[[SparseTraining, Any], Any]) -> None:
    """Steps that give the optimizer what ``seen`` makes of the gradients, and leave the weights as it leaves them."""
    patch.setattr(SparseTraining, "_for_optimizer", seen)
    patch.setattr(SparseLayer, "hide_shadow", lambda self: None)
