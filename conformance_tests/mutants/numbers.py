"""Bugs of infinite and large numbers, and of counts in few bits."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from conformance_tests.mutants.methods import patch_score
from conformance_tests.mutants.registry import caught_by
from rigl_core.arrays import numpy_namespace
from rigl_core.parts import criteria, structures
from rigl_core.testing.properties import test_numbers


def _finite_if(patch: pytest.MonkeyPatch, finite: Any) -> None:
    def all_finite(arrays: Iterable[Any]) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):
            return all(finite(array) for array in arrays)

    patch.setattr(importlib.import_module("rigl_backends.numpy.training"), "all_finite", all_finite)


@caught_by(test_numbers.test_opposite_infinities_in_a_block_count_as_zero)
def sums_of_opposite_infinities_are_ranked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(structures, "normal", lambda x, *, xp: x)


@caught_by(test_numbers.test_gradients_are_finite_one_by_one, "RigL")
def infinities_looked_for_in_the_sum(patch: pytest.MonkeyPatch) -> None:
    _finite_if(patch, lambda array: not np.isnan(array).any() and not np.isinf(array.sum()))


@caught_by(test_numbers.test_gradients_are_finite_one_by_one, "RigL")
def finite_if_the_sum_is(patch: pytest.MonkeyPatch) -> None:
    _finite_if(patch, lambda array: np.isfinite(array.sum()))


@caught_by(test_numbers.test_subnormal_weights_have_no_sign)
def subnormal_weights_flip(patch: pytest.MonkeyPatch) -> None:
    def keeps_its_sign(connections: Any, xp: Any) -> Any:
        return (connections.weight * connections.sign >= 0).astype(connections.weight.dtype)

    patch_score(patch, criteria.SIGN, keeps_its_sign)


@caught_by(test_numbers.test_counts_are_whole_in_half_precision, "SRigL")
def counts_of_eight_bits(patch: pytest.MonkeyPatch) -> None:
    def total(x: Any, *, axis: int, dtype: Any, keepdims: bool) -> Any:
        few = np.uint8 if x.dtype == np.bool_ else dtype
        return np.sum(x, axis=axis, dtype=few, keepdims=keepdims).astype(dtype)

    patch.setattr(numpy_namespace, "sum", total)


@caught_by(test_numbers.test_counts_are_whole_in_half_precision, "RigL, all layers")
def ties_counted_in_half_precision(patch: pytest.MonkeyPatch) -> None:
    def total(x: Any, *, axis: int, dtype: Any) -> Any:
        return np.cumsum(x, axis=axis, dtype=np.float16).astype(dtype)

    patch.setattr(numpy_namespace, "cumulative_sum", total)
