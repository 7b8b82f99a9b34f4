"""Bugs of gradients that come in micro-batches. NumPy's users add them up, so its harness has the bug."""

from __future__ import annotations

from typing import Any

import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.testing import micro_batches
from rigl_core.testing.properties import test_micro_batches


@caught_by(test_micro_batches.test_an_update_reads_the_gradients_of_all_micro_batches)
def last_micro_batch_alone(patch: pytest.MonkeyPatch) -> None:
    def last_of(parts: list[Any]) -> Any:
        return parts[-1]

    patch.setattr(micro_batches, "mean_of", last_of)
