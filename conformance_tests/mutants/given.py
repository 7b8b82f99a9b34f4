"""Bugs of topologies in files, and of a start from given masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conformance_tests import test_topologies
from conformance_tests.mutants.registry import caught_by
from rigl_core.parts.distributions import ErdosRenyiKernel
from rigl_core.storage import file, start, topology
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


@caught_by(test_topologies.test_any_axes_and_back)
def kernels_reshaped_but_not_turned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(topology, "turned", lambda mask, before, after: mask.reshape(after.shape))


@caught_by(test_topologies.test_a_file_gives_back_every_connection)
def bits_read_one_too_far(patch: pytest.MonkeyPatch) -> None:
    original = file._masks

    def masks(*arguments: Any) -> Any:
        return {name: np.roll(mask, 1) for name, mask in original(*arguments).items()}

    patch.setattr(file, "_masks", masks)


@caught_by(test_topologies.test_no_changed_byte_is_read)
def sums_not_compared(patch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(digest=lambda: bytes(32), digest_size=32)
    patch.setattr(file, "hashlib", SimpleNamespace(sha256=lambda content=b"": nothing))
