"""Bugs of large layers, which NumPy reads in parts."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.registry import caught_by
from rigl_backends.numpy.layer import SparseLayer
from rigl_core.arrays import numpy_namespace
from rigl_core.step import on_host, scoring, selection, workers
from rigl_core.testing.properties import test_large


@caught_by(test_large.test_every_part_of_a_large_layer_counts)
def ties_counted_from_the_start_of_their_part(patch: pytest.MonkeyPatch) -> None:
    def first_with(score: Any, eligible: Any, scores: Any, count: int) -> Any:
        found = []
        for part in workers.parts_of(eligible.size):
            found.append(np.flatnonzero((selection._floored(scores, part) == score) & eligible[part])[:count])
            count -= found[-1].size
        return np.concatenate(found)

    patch.setattr(selection, "_first_with", first_with)


@caught_by(test_large.test_every_part_of_a_large_layer_counts)
def finite_by_the_first_part(patch: pytest.MonkeyPatch) -> None:
    def all_finite(arrays: Iterable[Any]) -> bool:
        return all(np.isfinite(array.reshape(-1)[: workers.PART]).all() for array in arrays)

    patch.setattr(importlib.import_module("rigl_backends.numpy.training"), "all_finite", all_finite)


@caught_by(test_large.test_every_part_of_a_large_layer_counts)
def information_of_the_first_part(patch: pytest.MonkeyPatch) -> None:
    original, first = workers.any_normal, slice(0, workers.PART)
    patch.setattr(on_host, "any_normal", lambda x, mask, *, outside: original(x[first], mask[first], outside=outside))


@caught_by(test_large.test_random_numbers_of_a_large_layer)
def indices_of_16_bits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SparseLayer, "indices", lambda self: np.arange(self.layer.size).astype(np.uint16).astype(np.int32))


@caught_by(test_large.test_a_large_pool_in_half_precision)
def ties_counted_in_16_bits(patch: pytest.MonkeyPatch) -> None:
    def total(x: Any, *, axis: int, dtype: Any) -> Any:
        return np.cumsum(x, axis=axis, dtype=np.uint16).astype(dtype)

    patch.setattr(numpy_namespace, "cumulative_sum", total)


@caught_by(test_large.test_an_update_of_a_million_weights)
def every_span_looks_at_the_first(patch: pytest.MonkeyPatch) -> None:
    original = scoring.Magnitudes.look

    def look(self: Any, part: Any) -> Any:
        later = isinstance(part, slice) and (part.start or 0) >= selection.SPAN
        return original(self, slice(part.start - selection.SPAN, part.stop - selection.SPAN) if later else part)

    patch.setattr(scoring.Magnitudes, "look", look)
