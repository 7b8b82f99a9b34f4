"""The array operations of the core in TensorFlow; see `rigl_core.adapter.Namespace`.

They work eagerly, in a ``tf.function`` and under XLA. Sizes and counts may be unknown while a function is traced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext  # there is no public way

from rigl_core import adapter
from rigl_core.adapter import FloatInfo, numpy_namespace

int32 = tf.int32
best_of = None
first = None
total = None
ROW = 1 << 14
"""Numbers read at a time under XLA: few enough for the cache, enough for the loops around them to cost little."""

abs = tf.abs
logical_and = tf.logical_and
zeros_like = tf.zeros_like
astype = tf.cast
bitwise_right_shift = tf.bitwise.right_shift
reshape = tf.reshape
permute_dims = tf.transpose


def where(condition: tf.Tensor, x: tf.Tensor, y: tf.Tensor, /) -> tf.Tensor:
    return tf.raw_ops.Select(condition=condition, x=x, y=y)  # takes two thirds of the time of tf.where


def full_like(x: tf.Tensor, value: float, /) -> tf.Tensor:
    return tf.fill(tf.shape(x), tf.cast(value, x.dtype))


def sum(x: tf.Tensor, /, *, axis: int, dtype: tf.DType, keepdims: bool) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(x, dtype), axis, keepdims)


def cumulative_sum(x: tf.Tensor, /, *, axis: int, dtype: tf.DType) -> tf.Tensor:
    return tf.cumsum(tf.cast(x, dtype), axis)


@functools.cache
def finfo(dtype: tf.DType, /) -> FloatInfo:
    # bfloat16, which NumPy does not know, has the exponents of float32.
    return FloatInfo(float(np.finfo(np.float32 if dtype == tf.bfloat16 else dtype.as_numpy_dtype).smallest_normal))


def concat(arrays: Sequence[tf.Tensor], /) -> tf.Tensor:
    return tf.concat(arrays, axis=0)


def widen(x: tf.Tensor, /) -> tf.Tensor:
    return tf.cast(x, tf.float32) if x.dtype.size == 2 else x


def kth_largest(scores: tf.Tensor, k: Any, /) -> tf.Tensor:
    ordered = ordered_integers(scores)
    select = _select_on_host if tf.executing_eagerly() else _select_bit_by_bit
    return _from_ordered_integers(select(ordered, k), scores.dtype)


def on_host(choose: Callable[..., npt.NDArray[np.bool_]], /, *arrays: Any) -> tf.Tensor | None:
    return _call_on_host(choose, tf.TensorSpec(arrays[0].shape, tf.bool), *arrays)


def all_finite(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether no number is NaN or infinite: a bool scalar."""
    found = _call_on_host(lambda *own: np.bool_(adapter.all_finite(own)), tf.TensorSpec([], tf.bool), *arrays)
    return tf.reduce_all([True, *map(_is_finite, arrays)]) if found is None else found


def count_outside(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The number of values outside a mask that are not 0: an int64 scalar. Arrays are flat."""
    found = _call_on_host(lambda *own: np.int64(adapter.count_outside(*own)), tf.TensorSpec([], tf.int64), values, mask)
    if found is not None:
        return found
    return _count_outside_in_turn(values, mask) if in_xla() else tf.math.count_nonzero((values != 0) & ~mask)


def in_xla() -> bool:
    """Whether XLA compiles the function that is traced now; it cannot call NumPy."""
    return not tf.executing_eagerly() and bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def has_gpu() -> bool:
    """Whether TensorFlow may put arrays on a GPU."""
    return bool(tf.config.get_visible_devices("GPU"))


def ordered_integers(x: tf.Tensor) -> tf.Tensor:
    """Signed integers in the order of the numbers, one to one, of the same width."""
    return x if x.dtype.is_integer else _flip_negative(tf.bitcast(x, _INTEGERS[x.dtype.size]))


def _call_on_host(function: Callable[..., Any], result: tf.TensorSpec, /, *arrays: Any) -> tf.Tensor | None:
    """What NumPy makes of arrays where they lie, of the given shape and dtype; None where NumPy cannot go."""
    if tf.executing_eagerly():
        return tf.constant(function(*(x.numpy() if tf.is_tensor(x) else x for x in arrays)))
    if in_xla() or has_gpu():
        return None
    return tf.ensure_shape(tf.numpy_function(function, arrays, result.dtype, stateful=False), result.shape)


def _is_finite(x: tf.Tensor) -> tf.Tensor:
    if in_xla():  # which would hold an array of bools; a number times 0 is 0 or, if it is not finite, NaN
        longest = max([1, *x.shape])
        x = tf.linalg.matvec(tf.reshape(x, [-1, longest]), tf.zeros([longest], x.dtype))
    return tf.reduce_all(tf.math.is_finite(x))


def _count_outside_in_turn(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The same, some values at a time: XLA would hold what it sums, in eight bytes a value."""
    size = values.shape[0]
    width = min(size, ROW)

    def add(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first = tf.minimum(start, size - width)  # the last ones are some of those before, and others
        own = (tf.slice(values, [first], [width]) != 0) & ~tf.slice(mask, [first], [width])
        own &= first + tf.range(width) >= start
        return start + width, total + tf.reduce_sum(tf.cast(own, tf.int32))

    total = tf.while_loop(lambda start, _: start < size, add, (tf.constant(0), tf.constant(0)))[1]
    return tf.cast(total, tf.int64)


def _select_on_host(integers: tf.Tensor, k: Any) -> tf.Tensor:
    """The k-th largest of each row, by NumPy."""
    return tf.constant(numpy_namespace.kth_largest(integers.numpy(), k))


def _select_bit_by_bit(integers: tf.Tensor, k: Any) -> tf.Tensor:
    """The largest integer that at least k of a row reach, one bit at a time from the highest.

    TensorFlow's own selections sort, or take only a constant k under XLA.
    """
    dtype = integers.dtype
    bits = 8 * dtype.size
    steps = tf.constant([dtype.min, *(1 << bit for bit in range(bits - 2, -1, -1))], dtype)
    k = tf.maximum(tf.reshape(tf.cast(k, tf.int32), []), 1)

    def count(reached: tf.Tensor) -> tf.Tensor:
        return sum(reached, axis=-1, dtype=int32, keepdims=True)

    def add_bit(i: tf.Tensor, threshold: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        candidate = threshold ^ steps[i]
        return i + 1, tf.where(count(integers >= candidate) >= k, candidate, threshold)

    lowest = tf.zeros_like(count(integers), dtype) + dtype.min
    return tf.while_loop(lambda i, _: i < bits, add_bit, (tf.constant(0), lowest), maximum_iterations=bits)[1]


def _from_ordered_integers(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return x if dtype.is_integer else tf.bitcast(_flip_negative(x), dtype)


def _flip_negative(bits: tf.Tensor) -> tf.Tensor:
    """Negative floating numbers grow with their bits; flipping these turns the order round, and back."""
    return tf.where(bits < 0, bits ^ tf.constant(bits.dtype.max, bits.dtype), bits)


_INTEGERS = {2: tf.int16, 4: tf.int32, 8: tf.int64}
