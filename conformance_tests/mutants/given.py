"""Bugs of a start from given masks."""

from __future__ import annotations

from typing import Any

import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_core.parts.distributions import ErdosRenyiKernel
from rigl_core.storage import start
from rigl_core.testing.properties import test_given_masks


@caught_by(test_given_masks.test_a_training_begins_with_given_masks)
def counts_of_given_masks_shared_anew(patch: pytest.MonkeyPatch) -> None:
    """The masks' connections in all, shared among the layers by ERK."""
    patch.setattr(start, "Given", lambda counts: ErdosRenyiKernel())
    patch.setattr(start, "_check_counts", lambda plan, counts: None)


@caught_by(test_given_masks.test_a_training_begins_with_given_masks)
def given_masks_transposed(patch: pytest.MonkeyPatch) -> None:
    """Square masks look right in any layout."""
    original = start._masks

    def masks(*arguments: Any) -> Any:
        return {name: mask.T for name, mask in original(*arguments).items()}

    patch.setattr(start, "_masks", masks)
