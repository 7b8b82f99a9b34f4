"""The host's side of a layer of active weights: its calls, and what its training asks of it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.tf.multiplying import Floats, Multiplier, Sample
from rigl_core.adapter import Gradient, Index, Whole, available_threads

Columns = npt.NDArray[np.uint16]
Pointers = npt.NDArray[np.int32]

NEAR = 1e-4
"""How far a gradient may be from a multiple of what the samples gave, beside their norms: sums are rounded."""


NO_STATE = -1
"""In place of a digest: the layer is not trained."""


def digest(index: Index) -> int:
    """A number for some places."""
    return zlib.crc32(index.columns.data, zlib.crc32(index.pointers.data))


def call_host(function: Callable[..., Any], arrays: Sequence[Any], *kinds: tf.DType) -> list[tf.Tensor]:
    """What a function of NumPy's arrays returns, eagerly or in a ``tf.function``.

    Args:
        function: takes the arrays, and returns a sequence of arrays.
        arrays: tensors, variables or numbers.
        kinds: the dtypes of what it returns.
    """
    if tf.executing_eagerly():
        return [tf.constant(own) for own in function(*(x.numpy() if tf.is_tensor(x) else x for x in arrays))]
    if len(kinds) == 1:
        return [tf.numpy_function(lambda *own: function(*own)[0], arrays, kinds[0])]
    found = tf.numpy_function(function, arrays, list(kinds))
    return list(found) if kinds else []


class Link:
    """What NumPy does for a layer, and keeps for the coming update. TensorFlow calls it with arrays of NumPy.

    Attributes:
        shape: of the dense kernel: (inputs, outputs), or (height, width, inputs of a group, outputs).
        width: columns of a tile of the index.
        places: the variables of the index: its pointers and its columns; none of a layer that is described.
        clock: gives the number of the coming optimizer step, whether an update waits, and the `digest` of the places
            that the optimizer's state is of.
        reads: says whether that step reads the dense gradient.
        together: the links of one training.
        digest: of the places that were used last.
    """

    def __init__(
        self, shape: tuple[int, ...], width: int, places: Sequence[keras.Variable], multiplier: Multiplier
    ) -> None:
        self.shape, self.width, self.places, self._multiplier = shape, width, places, multiplier
        self.clock: Callable[[], tuple[Any, Any, Any]] = lambda: (0, False, NO_STATE)
        self.reads: Callable[[int, bool], bool] = lambda step, deferred: False
        self.together: Sequence[Link] = [self]
        self._index: Index | None = None
        self.digest = NO_STATE
        self._calls, self._moved_after = 0, 0
        self._samples: list[tuple[int, Sample]] = []
        self._total: Any = None
        self._norms = 0.0

    @property
    def threads(self) -> int:
        """The threads that TensorFlow may use in one operation."""
        return int(tf.config.threading.get_intra_op_parallelism_threads()) or available_threads()

    # Places.

    def index(self, pointers: Pointers, columns: Columns) -> Index:
        """The index of these places.

        Raises:
            ValueError: if they are none, such as those of a layer whose weights were never loaded.
        """
        known = self._index
        if known is None or not (np.array_equal(known.pointers, pointers) and np.array_equal(known.columns, columns)):
            own = Index(*self._matrix, True, self.width, pointers.copy(), columns.copy(), self._kernel)
            try:
                own.check()
            except ValueError as error:
                raise ValueError(
                    f"a layer of active weights has no connections yet, or broken ones ({error}): load its weights, or "
                    "make the model again from dense layers and call sparsify."
                ) from error
            self._index = known = own
            self.digest = digest(own)
        return known

    def index_of(self, flat: npt.NDArray[np.int32]) -> Index:
        """The index of the connections with these flat indices, which ascend."""
        return Index.of(flat, *self._matrix, inputs_first=True, width=self.width, kernel=self._kernel)

    @property
    def _kernel(self) -> int:
        """The positions of a convolution's kernel."""
        return math.prod(self.shape[:-2])

    @property
    def _matrix(self) -> tuple[int, int]:
        """The rows and columns of the index."""
        return self.shape[-1], self.shape[-2] * self._kernel

    @property
    def awaits_places(self) -> bool:
        """Whether the layer was described, and its variables were not loaded yet."""
        pointers, columns = (variable.numpy() for variable in self.places)
        return bool(pointers[-1] != columns.size)

    def flat(self, pointers: Pointers, columns: Columns) -> tuple[npt.NDArray[np.int32]]:
        """The flat index of each active weight."""
        return (self.index(pointers, columns).flat(),)

    # Products.

    def forward(self, pointers: Pointers, columns: Columns, values: Floats, x: Floats) -> tuple[Floats, np.int64]:
        """The outputs, without the bias; and the number of the call."""
        y = self._multiplier.forward(self.index(pointers, columns), values, x, threads=self.threads)
        self._calls += 1
        return y, np.int64(self._calls)

    def backward(
        self,
        step: Any,
        deferred: Any,
        state: Any,
        call: np.int64,
        pointers: Pointers,
        columns: Columns,
        values: Floats,
        x: Floats,
        dy: Floats,
    ) -> tuple[Floats, Floats]:
        """The gradients of the inputs, and of the active weights; if the coming step reads it, the sample is kept.

        Args:
            step: the number of the coming optimizer step.
            deferred: whether an update waits.
            state: the digest of the places that the optimizer's state is of.
            call: the number of the call of `forward`, whose places, weights and inputs follow.
            pointers: of the index.
            columns: of the index.
            values: the active weights.
            x: the inputs.
            dy: the gradient of the outputs.

        Raises:
            ValueError: if the topology was updated after the call, or restored without the optimizer's state.
        """
        if call <= self._moved_after:
            raise ValueError(
                "a gradient of a layer of active weights is of a call before an update of its topology: evaluate "
                "gradients before the optimizer applies them."
            )
        index = self.index(pointers, columns)
        if int(state) not in (NO_STATE, self.digest):
            raise ValueError(
                "active weights were restored without the optimizer's state, which is of other connections: restore "
                "both together, as rigl_backends.tf.EarlyStopping does."
            )
        dx, gradient, sample = self._multiplier.backward(index, values, x, dy, threads=self.threads)
        if self.reads(int(step), bool(deferred)):
            self._keep(int(call), sample, gradient)
        return dx, gradient

    # Samples.

    def _keep(self, call: int, sample: Sample, gradient: Floats) -> None:
        # TensorFlow may take back memory of its own.
        own = tuple(part.copy() if isinstance(part, np.ndarray) else part for part in sample)
        self._samples.append((call, own))
        self._total = gradient.astype(np.float64) if self._total is None else self._total + gradient
        self._norms += float(np.linalg.norm(gradient))

    def gradient(self, active: Floats, name: str) -> Gradient:
        """The gradient that an update reads, of the samples since the last step.

        Args:
            active: that of the active weights, as the optimizer got it: what the samples gave, times any number.
            name: the layer's.

        Raises:
            ValueError: if the samples did not give this gradient.
        """
        if self._total is None:
            if active.any():
                raise ValueError(_unknown(name, "no call of the layer gave it since the last step"))
            return Whole(active, active[:0])
        factor = self._factor(active, name)
        assert self._index is not None
        samples = [sample for _, sample in sorted(self._samples, key=lambda sample: sample[0])]
        own = self._multiplier.gradient(self._index, active, samples, threads=self.threads)
        if abs(factor - 1) > 1e-6:  # averaged, unscaled or clipped
            own = own * factor
            own.active = active
        return own

    def _factor(self, active: Floats, name: str) -> float:
        """The number that a gradient is of the samples' one."""
        total = self._total
        if not np.isfinite(total).all():  # the update will wait
            return 1.0
        square = float(total @ total)
        factor = float(total @ active) / square if square else 1.0
        if float(np.linalg.norm(active - factor * total)) > NEAR * abs(factor) * self._norms:
            raise ValueError(_unknown(name, "the calls of the layer since the last step gave another one"))
        return factor

    def forget(self) -> None:
        """A step has been made: what was for it is gone."""
        self._samples, self._total, self._norms = [], None, 0.0

    def moved(self) -> None:
        """An update has changed the places: gradients of earlier calls have others."""
        self._moved_after = self._calls


def _unknown(name: str, reason: str) -> str:
    return (
        f"the gradient of {name!r} holds active weights alone, and this step's update reads the dense one, which is "
        f"unknown: {reason}. At such a step evaluate the gradient once for each call of the optimizer, by a tape, with "
        "no penalty on the weights, and scale it as a whole only; or use storage='masks'."
    )
