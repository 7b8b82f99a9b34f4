"""Bugs of updates that wait for finite gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core import adapter
from rigl_core.testing.properties import test_deferred


def _finite_asked_if(patch: pytest.MonkeyPatch, asks: Any) -> None:
    due = adapter.SparseTraining.due

    def patched(self: Any, gradients: Mapping[int, Any], *, finite: Any) -> Any:
        return due(self, gradients, finite=finite if asks(self._rule) else lambda: True)

    patch.setattr(adapter.SparseTraining, "due", patched)


@caught_by(test_deferred.test_updates_wait_for_the_gradients_that_they_read, "MEST")
def what_drops_by_gradients_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    _finite_asked_if(patch, lambda rule: rule.reads_dense_gradient)


@caught_by(test_deferred.test_updates_wait_for_the_gradients_that_they_read, "RigL, all layers")
def pools_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    _finite_asked_if(patch, lambda rule: rule.scope == "layer")


@caught_by(test_deferred.test_the_step_of_an_update_that_waits_is_an_ordinary_one)
def a_waiting_update_takes_the_step(patch: pytest.MonkeyPatch) -> None:
    take_step = adapter.SparseTraining.take_step

    def patched(self: Any, gradients: Any, gradient_step: Any, *, finite: Any) -> None:
        waits = self._clock.due and not finite()
        take_step(self, gradients, (lambda: None) if waits else gradient_step, finite=finite)

    patch.setattr(adapter.SparseTraining, "take_step", patched)


@caught_by(test_deferred.test_a_stop_while_an_update_waits)
def a_stop_forgets_the_update_that_waits(patch: pytest.MonkeyPatch) -> None:
    load = adapter.SparseTraining.load_state_dict

    def patched(self: Any, state: Mapping[str, Any], **options: Any) -> None:
        load(self, {**state, "deferred": False}, **options)

    patch.setattr(adapter.SparseTraining, "load_state_dict", patched)


@caught_by(test_deferred.test_a_stop_while_an_update_waits)
def a_session_that_waits_goes_on_waiting(patch: pytest.MonkeyPatch) -> None:
    load = adapter.SparseTraining.load_state_dict

    def patched(self: Any, state: Mapping[str, Any], **options: Any) -> None:
        load(self, {**state, "deferred": state["deferred"] or bool(self._clock.deferred)}, **options)

    patch.setattr(adapter.SparseTraining, "load_state_dict", patched)
