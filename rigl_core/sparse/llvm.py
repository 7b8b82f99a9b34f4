"""Vectors of float32 in LLVM's intermediate representation, for the intrinsics of `numba_vectors`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

Value = Any
"""A value of LLVM; llvmlite has no types."""

INT, POINTER, COLUMN, FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(16), ir.FloatType()
FUSED = ("contract",)
"""The flag that lets LLVM make one operation of a multiplication and the addition that follows."""
REGISTER = 16
"""Floats of a register with AVX-512. LLVM makes two or four registers of it where they are shorter."""


def inlined(constants: int = 0) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function of what builds it; numba compiles it into the loops that call it.

    What builds it gets LLVM's builder, and then the arguments. The first ones are constants: integers of Python, for
    each of which the function is compiled by itself. The others are integers or addresses of 64 bits.
    """

    def decorate(build: Callable[..., None]) -> Callable[..., None]:
        others = len(signature(build).parameters) - 1 - constants

        def define(_: Any, *given: Any) -> Any:
            def generate(context: Any, builder: Value, kinds: Any, values: Sequence[Value]) -> Value:
                build(builder, *(kind.literal_value for kind in kinds.args[:constants]), *values[constants:])
                return context.get_dummy_value()

            return types.void(*given[:constants], *[types.int64] * others), generate

        define.__name__, define.__doc__ = build.__name__, build.__doc__
        define.__signature__ = signature(build)  # type: ignore[attr-defined]  # numba matches arguments by it
        function: Callable[..., None] = intrinsic(prefer_literal=True)(define)
        return function

    return decorate


class Vectors:
    """Builds operations on vectors whose addresses are integers."""

    def __init__(self, builder: Value, lanes: int = REGISTER) -> None:
        self.builder = builder
        self.lanes = lanes
        self.type = ir.VectorType(FLOAT, lanes)

    def load(self, address: Value, offset: int = 0) -> Value:
        """The vector that begins some floats after an address."""
        return self.builder.load(self._pointer(address, offset), align=4)

    def store(self, vector: Value, address: Value, offset: int = 0) -> None:
        """Write a vector some floats after an address."""
        self.builder.store(vector, self._pointer(address, offset), align=4)

    def add_to(self, address: Value, vector: Value) -> None:
        """Add a vector to the one at an address."""
        self.store(self.builder.fadd(self.load(address), vector), address)

    def splat(self, number: Value) -> Value:
        """A number in every lane."""
        first = self.builder.insert_element(
            ir.Constant(self.type, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
        )
        return self.shuffle(first, first, [0] * self.lanes)

    def zero(self) -> Value:
        """0 in every lane."""
        return ir.Constant(self.type, None)

    def shuffle(self, one: Value, other: Value, lanes: Sequence[int]) -> Value:
        """Lanes of two vectors; those of the other are counted on."""
        return self.builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    def multiply_add(self, one: Value, other: Value, total: Value) -> Value:
        """One times other plus total, with one rounding where the processor can."""
        product = self.builder.fmul(one, other, flags=FUSED)
        return self.builder.fadd(product, total, flags=FUSED)

    def sum(self, vector: Value) -> Value:
        """The sum of the lanes, in the order that suits the processor."""
        kind = ir.FunctionType(FLOAT, [FLOAT, self.type])
        reduce = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.vector.reduce.fadd.v{self.lanes}f32")
        return self.builder.call(reduce, [ir.Constant(FLOAT, -0.0), vector], fastmath=("reassoc",))

    def four_sums(self, one: Value, two: Value, three: Value, four: Value) -> Value:
        """The sums of the lanes of four vectors, as a vector; it takes half the operations of four times `sum`."""
        first = self._folded(one, two, (0, REGISTER, 1, REGISTER + 1))
        second = self._folded(three, four, (0, REGISTER, 1, REGISTER + 1))
        total = self._folded(first, second, (0, 1, REGISTER, REGISTER + 1))
        for half in (8, 4):
            low, high = (self.shuffle(total, total, list(range(start, start + half))) for start in (0, half))
            total = self.builder.fadd(low, high)
        return total

    def _folded(self, one: Value, other: Value, lanes: Sequence[int]) -> Value:
        """In every four lanes: the given lanes of two vectors, plus those two further on."""
        low = [lane + four for four in range(0, REGISTER, 4) for lane in lanes]
        high = [lane + 2 for lane in low]
        return self.builder.fadd(self.shuffle(one, other, low), self.shuffle(one, other, high))

    def _pointer(self, address: Value, offset: int) -> Value:
        return pointer(self.builder, self.builder.add(address, integer(4 * offset)), self.type)


def integer(number: int) -> Value:
    """A constant."""
    return ir.Constant(INT, number)


def moved(builder: Value, start: Value, step: int, count: Value) -> Value:
    """An address or index, some steps after another."""
    return builder.add(start, builder.mul(count, integer(step)))


def pointer(builder: Value, address: Value, kind: Value) -> Value:
    """A pointer of LLVM to an address."""
    return builder.inttoptr(address, kind.as_pointer())


def element(builder: Value, address: Value, index: Value, kind: Value) -> Value:
    """A pointer to an element of a flat array."""
    return builder.gep(pointer(builder, address, kind), [index])


def variable(builder: Value, first: Value) -> Value:
    """A variable with a first value; LLVM keeps it in a register."""
    return cgutils.alloca_once_value(builder, first)


@contextmanager
def loop(builder: Value, begin: Value, end: Value, step: int = 1) -> Iterator[Value]:
    """A loop from begin to before end; gives its index."""
    with cgutils.for_range_slice(builder, begin, end, integer(step), INT) as (index, _):
        yield index


@contextmanager
def connections(builder: Value, pointers: Value, row: Value) -> Iterator[tuple[Value, Value]]:
    """What to do for a row that has connections; gives where they begin and end."""
    places = row, builder.add(row, integer(1))
    begin, end = (builder.zext(builder.load(element(builder, pointers, place, POINTER)), INT) for place in places)
    with builder.if_then(builder.icmp_signed("<", begin, end)):
        yield begin, end
