"""The weights of a layer that holds only its active ones, as a pytree that JAX can differentiate, trace and donate.

`jax.grad` takes floating arrays alone. So the index of a weight (`rigl_core.sparse.index`) is held as the bits of
floats, with which nobody may compute. The optimizer never sees them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rigl_backends.jax.trees import is_traced
from rigl_core.adapter import Index, Layer

if TYPE_CHECKING:
    from rigl_backends.jax.link import Link

_STATIC: dict[str, Any] = {"static": True}  # part of the key under which compiled code is kept


@dataclass(frozen=True)
class Layout:
    """What never changes of a layer's index.

    Attributes:
        name: the layer's.
        rows: outputs.
        cols: inputs, times the positions of the kernel.
        inputs_first: whether the dense array is (kernel, inputs, outputs), as in flax, and not (outputs, inputs,
            kernel).
        width: columns of a tile.
        kernel: the height and the width of a convolution's kernel; None for a matrix.
    """

    name: str
    rows: int
    cols: int
    inputs_first: bool
    width: int
    kernel: tuple[int, int] | None = None

    @classmethod
    def of(cls, layer: Layer, index: Index) -> Layout:
        """The layout of a layer's index."""
        sizes = [layer.shape[axis] for axis in layer.kernel_axes]
        kernel = (sizes[0], sizes[1]) if sizes else None
        return cls(layer.name, index.rows, index.cols, index.inputs_first, index.width, kernel)

    @property
    def channels(self) -> int:
        """The inputs that an output sees at one position of the kernel."""
        return self.cols // math.prod(self.kernel or ())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense array."""
        kernel = self.kernel or ()
        return (*kernel, self.channels, self.rows) if self.inputs_first else (self.rows, self.channels, *kernel)

    def index(self, columns: Any, pointers: Any) -> Index:
        """The index with these arrays of NumPy, in their own dtypes or as bits of floats."""
        own = columns.view(np.uint16), pointers.view(np.int32)
        kernel = math.prod(self.kernel or ())
        return Index(self.rows, self.cols, self.inputs_first, self.width, own[1], own[0], kernel)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Topology:
    """Where the active weights of a layer are: its place among the masks of a `SparseState`.

    Attributes:
        columns: uint16 (active,); see `rigl_core.sparse.index`.
        pointers: int32 (tiles * rows + 1,); the same.
        marks: float32 (3,): two numbers by which a weight shows that it belongs to this topology; and the number of the
            coming step, counted from 1, if it reads the dense gradient, else 0.
        layout: what never changes.
        link: to the training.
    """

    columns: Array
    pointers: Array
    marks: Array
    layout: Layout = field(metadata=_STATIC)
    link: Link = field(metadata=_STATIC)

    @classmethod
    def of(cls, layer: Layer, index: Index, link: Link) -> Topology:
        """The topology of a layer's index."""
        marks = np.append(digest_of(index), np.float32(0))
        columns, pointers, own = map(jnp.asarray, (index.columns, index.pointers, marks))
        return cls(columns, pointers, own, Layout.of(layer, index), link)

    def index(self) -> Index:
        """The index, where the arrays are known."""
        return self.layout.index(np.asarray(self.columns), np.asarray(self.pointers))

    def flat(self) -> Array:
        """The int32 flat index of each active weight in the dense array, in storage order."""
        if not is_traced(self):  # without a compilation
            return jnp.asarray(self.index().flat())
        own, count = self.layout, self.columns.shape[0]
        segments = jnp.arange(self.pointers.shape[0] - 1, dtype=jnp.int32)
        segment = jnp.repeat(segments, jnp.diff(self.pointers), total_repeat_length=count)
        tile, row = jnp.divmod(segment, max(own.rows, 1))
        column = tile * own.width + self.columns.astype(jnp.int32)
        if not own.inputs_first:
            return row * own.cols + column
        channel, position = jnp.divmod(column, math.prod(own.kernel or ()))
        return (position * own.channels + channel) * own.rows + row

    def plain(self) -> Topology:
        """The topology out of the variables in which flax nnx wraps every array."""
        columns, pointers, marks = jax.tree.leaves(self)
        return replace(self, columns=columns, pointers=pointers, marks=marks)

    def at_step(self, number: int) -> Topology:
        """The topology with another last mark."""
        own = np.array(self.marks)
        own[2] = number
        return replace(self, marks=jnp.asarray(own))

    def mask(self) -> Array:
        """The mask, in the layer's shape."""
        if not is_traced(self):
            return jnp.asarray(self.index().mask()).reshape(self.layout.shape)
        mask = jnp.zeros(self.layout.rows * self.layout.cols, bool)
        return mask.at[self.flat()].set(True, unique_indices=True).reshape(self.layout.shape)

    def values(self, dense: Array) -> Array:
        """The active values of a dense array, in storage order."""
        if not is_traced((self, dense)):
            return jnp.asarray(self.index().values(np.asarray(dense)))
        return dense.reshape(-1)[self.flat()]

    def weight(self, values: Array) -> ActiveWeight:
        """The weight with these values: float32 (active,), in storage order."""
        columns, pointers = _as(np.float16, self.columns), _as(np.float32, self.pointers)
        return ActiveWeight(values, columns, pointers, _as(np.float32, self.marks), self.layout, self.link)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ActiveWeight:
    """The active weights of a layer, in place of its dense array: for `sparse_linear` and `sparse_conv`.

    Its ``values`` are what is trained. The other arrays are the index, as bits of floats: compute nothing with them.

    Attributes:
        values: float32 (active,), in storage order (`rigl_core.sparse.index`).
        columns: float16 (active,), the bits of uint16 numbers.
        pointers: float32 (tiles * rows + 1,), the bits of int32 numbers.
        marks: float32 (3,): those of its topology.
        layout: what never changes.
        link: to the training.
    """

    values: Array
    columns: Array
    pointers: Array
    marks: Array
    layout: Layout = field(metadata=_STATIC)
    link: Link = field(metadata=_STATIC)

    @property
    def topology(self) -> Topology:
        """Where the weights are."""
        self.check_dtypes()
        columns, pointers = _as(np.uint16, self.columns), _as(np.int32, self.pointers)
        return Topology(columns, pointers, _as(np.float32, self.marks), self.layout, self.link)

    def check_dtypes(self) -> None:
        """Refuse a tree of parameters that was cast.

        Raises:
            TypeError: naming the layer.
        """
        for kind in ("values", "columns", "pointers", "marks"):
            found, dtype = getattr(self, kind).dtype, "float16" if kind == "columns" else "float32"
            if found != dtype:
                raise TypeError(
                    f"the {kind} of {self.layout.name!r} are {found} in place of {dtype}: its parameters were cast. "
                    "Leave active weights out, or use storage='masks' for this layer."
                )


def _as(dtype: Any, array: Array) -> Array:
    """A copy of an array, whose bits are read in another dtype: two trees that are donated must not share memory."""
    return lax.bitcast_convert_type(array, dtype) if is_traced(array) else jnp.array(np.asarray(array).view(dtype))


def digest_of(index: Index) -> Any:
    """Two float32 numbers of 24 bits each for an index. An average of indices has others."""
    total = np.uint64(index.size)
    for array in (index.columns, index.pointers):
        whole = array.size * array.itemsize // 8 * 8
        words = array.view(np.uint8)[:whole].view(np.uint64)
        rest = int.from_bytes(array.view(np.uint8)[whole:].tobytes(), "little")
        total = np.uint64((int(total) * 0x9E3779B97F4A7C15 + int(np.add.reduce(words)) + rest) % 2**64)
    high = int(total) * 0x9E3779B97F4A7C15 % 2**64 >> 16
    return np.array([high % 2**24, high >> 24], np.float32)
