"""The array operations that the traced code uses.

`topology`, `random`, the criteria and the code that uses them are written once, for every array library: each function
takes the library's operations as its argument ``xp``, the namespace. A namespace has the names of the Python array API
standard, with the arguments that are given here, and two operations that the standard lacks. An adapter's namespace is
a module (or any object) with these names.

Arrays are flat, or have two axes where connections are chosen in groups. A namespace whose ``sum``, ``kth_largest`` and
``first`` are over all axes can take layers in their own shapes too, so that their shards stay where they are. The code
also uses the arrays' own operators (``& | ~ > >= == + - * // % ^``) and slices. A Python number beside an array takes
the array's dtype: 2.0**-512 beside a float64 array must not become 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

Array = Any
"""An array of the backend, of any floating dtype, bool (masks) or int32 (counts, random scores)."""

OnHost = Callable[..., Array | None]
"""``on_host(choose, *arrays)``: apply a function of NumPy arrays to arrays of the backend, without copying them.

``arrays`` holds arrays of the backend and numbers. ``choose`` gets the arrays as NumPy arrays on the same memory, and
the numbers as they are. It returns a flat bool array as long as the first array. ``on_host`` returns that as an array
of the backend; or None if NumPy cannot read the arrays, because they are on a GPU or a compiler traces them.
"""


class FloatInfo(NamedTuple):
    """The facts about a floating dtype that the core needs.

    Attributes:
        smallest_normal: the smallest positive normal number, a Python float.
    """

    smallest_normal: float


class Namespace(Protocol):
    """The array operations that a backend gives to the core."""

    @property
    def int32(self) -> Any:
        """The dtype of counts."""

    @property
    def on_host(self) -> OnHost | None:
        """Lets NumPy work on the backend's arrays, which makes updates fast; None if NumPy cannot. Optional."""

    @property
    def best_of(self) -> Callable[..., Array] | None:
        """A faster `rigl_core.arrays.topology.best_of`; None to use the definition. Optional."""

    @property
    def first(self) -> Callable[[Array, Array], Array] | None:
        """``first(tied, room)``: the first ``room`` true entries of a mask in C order; None to count them. Optional."""

    @property
    def total(self) -> Callable[[Array], Array] | None:
        """Adds up counts over all shards, if arrays are shards of layers; None if they are whole. Optional."""

    def abs(self, x: Array, /) -> Array:
        """Absolute values."""

    def where(self, condition: Array, x: Array, y: Array, /) -> Array:
        """``x`` where the condition holds, ``y`` elsewhere; all three have one shape."""

    def logical_and(self, x: Array, y: Array, /) -> Array:
        """True where both masks are true."""

    def zeros_like(self, x: Array, /) -> Array:
        """Zeros with the shape and dtype of ``x``."""

    def full_like(self, x: Array, value: int, /) -> Array:
        """A constant array with the shape and dtype of ``x``."""

    def sum(self, x: Array, /, *, axis: int, dtype: Any, keepdims: bool) -> Array:
        """The sum along an axis. True counts as 1, which goes beyond the standard."""

    def cumulative_sum(self, x: Array, /, *, axis: int, dtype: Any) -> Array:
        """The sum up to and including each position of an axis. True counts as 1, which goes beyond the standard."""

    def finfo(self, dtype: Any, /) -> Any:
        """A `FloatInfo`, or any object with its attribute."""

    def astype(self, x: Array, dtype: Any, /) -> Array:
        """The numbers in another dtype, rounded to the nearest; integers drop a float's fraction, true becomes 1."""

    def bitwise_right_shift(self, x: Array, bits: int, /) -> Array:
        """Arithmetic shift of int32 values."""

    def reshape(self, x: Array, shape: tuple[int, ...], /) -> Array:
        """The numbers, in C order, in another shape; a size of -1 is computed from the other sizes."""

    def permute_dims(self, x: Array, axes: tuple[int, ...], /) -> Array:
        """The axes in another order."""

    def concat(self, arrays: Sequence[Array], /) -> Array:
        """Flat arrays of one dtype, joined one after the other."""

    def widen(self, x: Array, /) -> Array:
        """16-bit floats as float32; other arrays unchanged. (Not in the standard.)"""

    def kth_largest(self, scores: Array, k: Any, /) -> Array:
        """The k-th largest score along the last axis, which stays with size 1. (Not in the standard.)

        ``k`` is a number, or an array with one number; for k < 1 the result is the largest score. If the axis has size
        0, the result may be any number.
        """


def count(x: Array, *, xp: Namespace) -> Array:
    """The int32 sum over a layer's connections, which lie along the last axis; that stays with size 1. True is 1."""
    own = add(x, xp=xp)
    return own if xp.total is None else xp.total(own)


def add(x: Array, *, xp: Namespace) -> Array:
    """The int32 sum of what is here, along the last axis, which stays with size 1. True is 1.

    Shards of a layer have a `count` in common. Arrays of such counts are the same in all shards: add these up.
    """
    return xp.sum(x, axis=-1, dtype=xp.int32, keepdims=True)
