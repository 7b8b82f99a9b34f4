"""Bugs of steps in which the optimizer evaluates the loss several times. PyTorch alone has such optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.testing.properties import test_closures

STEPS = "rigl_backends.torch.training.Steps"
"""By its name, so that PyTorch is imported only where a mutant needs it."""


@caught_by(test_closures.test_one_update_a_step_however_often_the_loss_is_evaluated, "RigL", backend="torch")
def an_update_at_every_evaluation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(f"{STEPS}._needs_rollback", lambda self, closure: False)


@caught_by(test_closures.test_one_update_a_step_however_often_the_loss_is_evaluated, "SNFS", backend="torch")
def momentum_at_every_evaluation(patch: pytest.MonkeyPatch) -> None:
    def then_begin(self: Any, closure: Callable[[], Any]) -> Callable[[], Any]:
        def evaluate() -> Any:
            depth, self._depth = self._depth, 0
            self._watch.settle()
            loss = closure()
            self._begin()
            self._depth = depth
            return loss

        return evaluate

    patch.setattr(f"{STEPS}._then_begin", then_begin)
