"""The core's operations in TensorFlow, compared with NumPy's."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from rigl_backends.tf import tensorflow_namespace
from rigl_core.adapter import count, magnitude, numpy_namespace, random_key, random_scores, updated_mask
from tests.tf.helpers import MODES, compiled

DTYPES = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)


def draw(rng: np.random.Generator, dtype: Any, size: int, *, special: bool) -> npt.NDArray[Any]:
    """Numbers with many ties; with ``special``, also NaN, infinities, -0 and subnormal numbers."""
    finfo = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    tiny = float(finfo.smallest_normal)
    odd = [np.nan, np.inf, -np.inf, -0.0, tiny, tiny / 2, float(finfo.smallest_subnormal), float(finfo.max)]
    numbers = [0.0, 1.0, -1.0, 2.0, 0.5, 1 + float(finfo.eps), *(odd if special else [])]
    return rng.choice(np.array(numbers, dtype), size)


def update(xp: Any) -> Any:
    def new_mask(weight: Any, gradient: Any, mask: Any, keep: Any, grow: Any) -> Any:
        return updated_mask(magnitude(weight, xp=xp), magnitude(gradient, xp=xp), mask, keep, grow, xp=xp)[0]

    return new_mask


def for_numpy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array for NumPy, whose functions do not know bfloat16: such numbers become float32, which is exact."""
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_updated_masks_are_numpys(dtype: Any, mode: str) -> None:
    rng = np.random.default_rng(0)
    new_mask = compiled(update(tensorflow_namespace), mode)
    for size in (0, 1, 2, 100):
        for case in range(8):
            weight, gradient = (draw(rng, dtype, size, special=case % 2 == 0) for _ in range(2))
            mask = rng.random(size) < rng.choice([0.0, 0.2, 0.7, 1.0])
            active = int(mask.sum())
            grow = (0, active, int(rng.integers(0, active + 1)))[case % 3]
            expected = update(numpy_namespace)(for_numpy(weight), for_numpy(gradient), mask, active - grow, grow)
            arguments = (weight, gradient, mask, active - grow, grow)
            np.testing.assert_array_equal(new_mask(*map(tf.constant, arguments)).numpy(), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_the_kth_largest_of_any_numbers(dtype: Any, mode: str) -> None:
    rng = np.random.default_rng(1)
    scores = (rng.normal(size=60) * 50).astype(dtype)
    scores[:10] = scores[10]
    if dtype is not np.int32:
        scores[20:24] = [np.inf, -np.inf, 0.0, -0.0]
    select = compiled(tensorflow_namespace.kth_largest, mode)
    for k in (0, 1, 2, 11, 30, 60):
        found = select(tf.constant(scores), tf.constant(k)).numpy()
        assert found.dtype == scores.dtype
        assert found == np.sort(scores)[-max(k, 1)]


ROWS = np.array([[3, -1, 3, 7], [0, 0, 0, 0], [-5, 2, 9, 2]], np.int32)
OPERATIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "count": (lambda xp, x: count(x, xp=xp), (ROWS > 1,)),
    "sum": (lambda xp, x: count(x, xp=xp), (ROWS,)),
    "flat sum": (lambda xp, x: count(x, xp=xp), (ROWS[0],)),
    "cumulative count": (lambda xp, x: xp.cumulative_sum(x, axis=-1, dtype=xp.int32), (ROWS > 1,)),
    "cumulative sum": (lambda xp, x: xp.cumulative_sum(x, axis=-1, dtype=xp.int32), (ROWS,)),
    "k-th of each row": (lambda xp, x: xp.kth_largest(x, 2), (ROWS.astype(np.float32),)),
    "k of an array": (lambda xp, x, k: xp.kth_largest(x, k), (ROWS, np.array([3], np.int32))),
    "reshape": (lambda xp, x: xp.reshape(x, (2, -1)), (ROWS,)),
    "permute": (lambda xp, x: xp.permute_dims(x, (1, 0)), (ROWS,)),
    "concat": (lambda xp, x, y: xp.concat([x, y]), (ROWS[0], ROWS[2])),
    "widen half": (lambda xp, x: xp.widen(x), (np.array([0.1, np.inf], np.float16),)),
    "widen double": (lambda xp, x: xp.widen(x), (np.array([0.1]),)),
    "widen integers": (lambda xp, x: xp.widen(x), (ROWS,)),
    "cast": (lambda xp, x, y: xp.astype(x, y.dtype), (np.array([2**24 + 1, -3], np.int32), np.ones(1, np.float32))),
    "cast to half": (
        lambda xp, x, y: xp.astype(x, y.dtype),
        (np.array([1 + 2**-11, 0.1], np.float32), np.ones(1, np.float16)),
    ),
    "integers": (lambda xp, x: xp.astype(x, xp.int32), (np.array([0.0, 1.99, 2.0**30]),)),
    "truths": (lambda xp, x: xp.astype(x, xp.int32), (ROWS > 1,)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_numpys(name: str, mode: str) -> None:
    """Results have the same numbers, shape and dtype."""
    operation, arguments = OPERATIONS[name]
    expected = operation(numpy_namespace, *arguments)
    found = compiled(lambda *given: operation(tensorflow_namespace, *given), mode)(*map(tf.constant, arguments)).numpy()
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


@pytest.mark.parametrize("mode", MODES)
def test_random_scores_wrap_around_as_numpys(mode: str) -> None:
    def scores(first: tf.Tensor, second: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        return random_scores((first, second), indices, xp=tensorflow_namespace)

    make = compiled(scores, mode)
    indices = np.arange(5000, dtype=np.int32)
    for seed in range(5):
        key = random_key(seed, "fc.weight", 7)
        expected = random_scores(key, indices, xp=numpy_namespace)
        np.testing.assert_array_equal(make(*map(tf.constant, (*key, indices))).numpy(), expected)


def test_sizes_and_counts_may_be_unknown_when_traced() -> None:
    spec = tf.TensorSpec([None], tf.float32)
    count = tf.TensorSpec([], tf.int32)
    new_mask = tf.function(
        update(tensorflow_namespace), input_signature=[spec, spec, tf.TensorSpec([None], tf.bool), count, count]
    )
    rng = np.random.default_rng(2)
    for size in (0, 3, 40):
        weight, gradient = (rng.normal(size=size).astype(np.float32) for _ in range(2))
        mask = np.arange(size) % 2 == 0
        arguments = (weight, gradient, mask, int(mask.sum()) - size // 4, size // 4)
        expected = update(numpy_namespace)(*arguments)
        np.testing.assert_array_equal(new_mask(*map(tf.constant, arguments)).numpy(), expected)
    assert new_mask.experimental_get_tracing_count() == 1
