"""The index of active connections, against masks."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigl_core.sparse.index import Index

MATRICES = [(1, 1, 1), (3, 7, 1), (5, 300, 1), (40, 129, 1), (2, 2050, 1), (7, 0, 1), (0, 7, 1)]
CONVOLUTIONS = [(6, 45, 9), (2, 300, 3), (3, 25, 25), (4, 0, 9), (0, 18, 9)]
SIZES = st.sampled_from([*MATRICES, *CONVOLUTIONS])
"""Rows, columns, and the positions of a convolution's kernel."""


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([0, 0.02, 0.3, 1]), st.booleans(), st.integers(0, 99))
def test_an_index_is_its_mask(sizes: tuple[int, int, int], density: float, inputs_first: bool, seed: int) -> None:
    """There and back; the values move with an update, in the order that a new index would give them."""
    rng, (rows, cols, kernel) = np.random.default_rng(seed), sizes
    mask = rng.random(rows * cols) < density
    index = Index.of(np.flatnonzero(mask).astype(np.int32), rows, cols, inputs_first=inputs_first, kernel=kernel)
    index.check()
    np.testing.assert_array_equal(index.mask(), mask)
    dense = rng.normal(size=mask.size).astype(np.float32) * mask
    np.testing.assert_array_equal(index.dense(index.values(dense)), dense)
    stays = rng.random(index.size) < 0.6
    new = rng.permutation(np.flatnonzero(~mask))[: rng.integers(0, 9)].astype(np.int32)
    changed, is_new, order = index.changed(stays, new)
    changed.check()
    expected = np.sort(np.concatenate([index.flat()[stays], new]))
    same = Index.of(expected, rows, cols, inputs_first=inputs_first, width=index.width, kernel=kernel)
    np.testing.assert_array_equal(changed.columns, same.columns)
    np.testing.assert_array_equal(changed.pointers, same.pointers)
    np.testing.assert_array_equal(changed.flat()[~is_new], index.flat()[stays])
    np.testing.assert_array_equal(changed.flat()[is_new], new[order])


@pytest.mark.parametrize("inputs_first", [False, True])
def test_the_columns_of_a_convolution(inputs_first: bool) -> None:
    """Channel by channel, also if the framework's array is (height, width, inputs, outputs)."""
    outputs, inputs, height, width = 4, 3, 2, 5
    mask = np.random.default_rng(0).random((outputs, inputs, height, width)) < 0.3
    own = mask.transpose(2, 3, 1, 0) if inputs_first else mask
    flat = np.flatnonzero(own).astype(np.int32)
    index = Index.of(flat, outputs, inputs * height * width, inputs_first=inputs_first, kernel=height * width)
    assert index.width == index.cols
    found = np.zeros((outputs, index.cols), bool)
    found[index.segments(), index.columns] = True
    np.testing.assert_array_equal(found, mask.reshape(outputs, -1))


def test_a_connection_takes_two_bytes_and_little_more() -> None:
    flat = np.sort(np.random.default_rng(0).choice(2048 * 2048, 400_000, replace=False)).astype(np.int32)
    assert Index.of(flat, 2048, 2048).nbytes < 2.4 * flat.size


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ([0, 2, 1], "must ascend"),
        ([0, 1, 1], "must ascend"),
        ([-1, 3], "flat indices go from -1 to 3: the layer has 12 connections"),
        ([3, 12], "flat indices go from 3 to 12: the layer has 12 connections"),
        ([0.5, 2.0], "give a flat array of integers"),
        ([[0, 1]], "give a flat array of integers"),
    ],
)
def test_flat_indices_that_are_none(flat: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        Index.of(np.array(flat), 3, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pointers": np.array([0, 2, 1, 3], np.int32)}, "pointers must not descend"),
        ({"pointers": np.array([0, 1, 3], np.int32)}, "pointers must be 4 numbers, from 0 to 3"),
        ({"pointers": np.array([0, 1, 2, 4], np.int32)}, "pointers must be 4 numbers, from 0 to 3"),
        ({"pointers": np.array([0, 1, 2, 3])}, "pointers must be a flat int32 array"),
        ({"columns": np.array([0, 1, 4], np.uint16)}, "lie outside the layer's 4 inputs"),
        ({"columns": np.array([1, 1, 2], np.uint16), "pointers": np.array([0, 2, 3, 3], np.int32)}, "must ascend"),
    ],
)
def test_arrays_that_are_no_index(change: dict[str, Any], message: str) -> None:
    """A kernel would read memory that is not its own."""
    arrays = {"pointers": np.array([0, 1, 2, 3], np.int32), "columns": np.array([0, 1, 3], np.uint16)}
    Index(3, 4, False, 4, **arrays).check()
    with pytest.raises(ValueError, match=message):
        Index(3, 4, False, 4, **{**arrays, **change}).check()
