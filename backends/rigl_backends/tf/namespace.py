"""The array operations of the core, in TensorFlow; eager, in tf.function and under XLA alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext  # there is no public way

from rigl_core.arrays.namespace import HostNamespace, numpy_namespace


class TensorFlowNamespace:
    """See `rigl_core.arrays.namespace.Namespace`; sizes and counts may be unknown when a function is traced."""

    abs = staticmethod(tf.abs)
    where = staticmethod(tf.where)
    zeros_like = staticmethod(tf.zeros_like)

    @staticmethod
    def full_like(x: tf.Tensor, value: int, /) -> tf.Tensor:
        return tf.fill(tf.shape(x), tf.cast(value, x.dtype))

    @staticmethod
    def count(mask: tf.Tensor, /) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(mask, tf.int32), axis=-1, keepdims=True)

    @staticmethod
    def cumulative_count(mask: tf.Tensor, /) -> tf.Tensor:
        return tf.cumsum(tf.cast(mask, tf.int32), axis=-1)

    @staticmethod
    def smallest_normal(x: tf.Tensor, /) -> float:
        # bfloat16, which NumPy does not know, has the exponents of float32.
        return float(np.finfo(np.float32 if x.dtype == tf.bfloat16 else x.dtype.as_numpy_dtype).smallest_normal)

    @staticmethod
    def shift_right(x: tf.Tensor, bits: int, /) -> tf.Tensor:
        return tf.bitwise.right_shift(x, bits)

    @staticmethod
    def kth_largest(scores: tf.Tensor, k: Any, /) -> tf.Tensor:
        ordered = ordered_integers(scores)
        select = _select_on_host if tf.executing_eagerly() else _select_bit_by_bit
        return _from_ordered_integers(select(ordered, k), scores.dtype)

    @staticmethod
    def reshape(x: tf.Tensor, shape: tuple[int, ...], /) -> tf.Tensor:
        return tf.reshape(x, shape)

    @staticmethod
    def permute(x: tf.Tensor, axes: tuple[int, ...], /) -> tf.Tensor:
        return tf.transpose(x, axes)

    @staticmethod
    def concat(arrays: Sequence[tf.Tensor], /) -> tf.Tensor:
        return tf.concat(arrays, axis=0)

    @staticmethod
    def widen(x: tf.Tensor, /) -> tf.Tensor:
        return tf.cast(x, tf.float32) if x.dtype.size == 2 else x

    @staticmethod
    def cast(x: tf.Tensor, like: tf.Tensor, /) -> tf.Tensor:
        return tf.cast(x, like.dtype)

    @staticmethod
    def integers(x: tf.Tensor, /) -> tf.Tensor:
        return tf.cast(x, tf.int32)

    @staticmethod
    def on_host(choose: Callable[..., npt.NDArray[np.bool_]], /, *arrays: Any) -> tf.Tensor | None:
        if tf.executing_eagerly():
            return tf.constant(choose(*(x.numpy() if tf.is_tensor(x) else x for x in arrays)))
        if in_xla() or has_gpu():
            return None
        mask = tf.numpy_function(choose, arrays, tf.bool, stateful=False)
        return tf.ensure_shape(mask, arrays[0].shape)


def in_xla() -> bool:
    """Whether XLA compiles what is traced now; NumPy cannot be called then."""
    return not tf.executing_eagerly() and bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def has_gpu() -> bool:
    """Whether TensorFlow may put arrays on a GPU."""
    return bool(tf.config.get_visible_devices("GPU"))


def _select_on_host(integers: tf.Tensor, k: Any) -> tf.Tensor:
    """The k-th largest of each row, by NumPy, which on a CPU shares the tensor's memory."""
    return tf.constant(numpy_namespace.kth_largest(integers.numpy(), k))


def _select_bit_by_bit(integers: tf.Tensor, k: Any) -> tf.Tensor:
    """The largest integer that at least k of a row reach, one bit at a time from the highest.

    TensorFlow's own selections sort, or take only a constant k under XLA.
    """
    dtype = integers.dtype
    bits = 8 * dtype.size
    steps = tf.constant([dtype.min, *(1 << bit for bit in range(bits - 2, -1, -1))], dtype)
    k = tf.maximum(tf.reshape(tf.cast(k, tf.int32), []), 1)

    def add_bit(i: tf.Tensor, threshold: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        candidate = threshold ^ steps[i]
        enough = TensorFlowNamespace.count(integers >= candidate) >= k
        return i + 1, tf.where(enough, candidate, threshold)

    lowest = tf.zeros_like(TensorFlowNamespace.count(integers), dtype) + dtype.min
    return tf.while_loop(lambda i, _: i < bits, add_bit, (tf.constant(0), lowest), maximum_iterations=bits)[1]


def ordered_integers(x: tf.Tensor) -> tf.Tensor:
    """Signed integers in the order of the numbers, one to one, of the same width."""
    return x if x.dtype.is_integer else _flip_negative(tf.bitcast(x, _INTEGERS[x.dtype.size]))


def _from_ordered_integers(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return x if dtype.is_integer else tf.bitcast(_flip_negative(x), dtype)


def _flip_negative(bits: tf.Tensor) -> tf.Tensor:
    """Negative floating numbers grow with their bits; flipping these turns the order round, and back."""
    return tf.where(bits < 0, bits ^ tf.constant(bits.dtype.max, bits.dtype), bits)


_INTEGERS = {2: tf.int16, 4: tf.int32, 8: tf.int64}

tensorflow_namespace: HostNamespace = TensorFlowNamespace()
