"""Inner loops of the kernels, as vectors that stay in registers: numba's own loops take twice the time."""

from __future__ import annotations

from functools import reduce

from rigl_core.sparse.llvm import (
    COLUMN,
    FLOAT,
    INT,
    REGISTER,
    Value,
    Vectors,
    connections,
    element,
    inlined,
    integer,
    loop,
    moved,
    variable,
)

ROWS, COLUMNS = 6, REGISTER
"""A block of products: it fills the registers of AVX2, and suits those of AVX-512."""


LONGEST = 64
"""Floats that are added up at a time, so that no addition waits for the one before."""
FOUR = 4
"""Connections whose dot products are summed together."""


@inlined(constants=1)
def copy(builder: Value, lanes: int, source: Value, target: Value) -> None:
    """target[0:lanes] = source[0:lanes]."""
    vectors = Vectors(builder, lanes)
    vectors.store(vectors.load(source), target)


@inlined(constants=1)
def add(builder: Value, lanes: int, source: Value, target: Value) -> None:
    """target[0:lanes] += source[0:lanes]."""
    vectors = Vectors(builder, lanes)
    vectors.store(builder.fadd(vectors.load(target), vectors.load(source)), target)


@inlined(constants=1)
def clear(builder: Value, lanes: int, target: Value) -> None:
    """target[0:lanes] = 0."""
    vectors = Vectors(builder, lanes)
    vectors.store(vectors.zero(), target)


@inlined(constants=1)
def add_rows(
    builder: Value,
    lanes: int,
    rows: Value,
    pointers: Value,
    columns: Value,
    values: Value,
    x: Value,
    y: Value,
    stride: Value,
) -> None:
    """y[row, 0:lanes] += values[q] * x[columns[q], 0:lanes] for the connections q of each row, one after the other.

    The connections of a row go from pointers[row] to before pointers[row + 1]. The rows of y lie `stride` bytes apart.
    """
    vectors, ways = Vectors(builder, lanes), LONGEST // lanes
    with loop(builder, integer(0), rows) as row, connections(builder, pointers, row) as (begin, end):
        output = builder.add(y, builder.mul(row, stride))
        totals = [variable(builder, first) for first in (vectors.load(output), *[vectors.zero()] * (ways - 1))]
        whole = builder.sub(end, builder.and_(builder.sub(end, begin), integer(ways - 1)))
        for start, stop, own in ((begin, whole, totals), (whole, end, totals[:1])):
            with loop(builder, start, stop, len(own)) as first:
                for i, total in enumerate(own):
                    q = builder.add(first, integer(i))
                    value = vectors.splat(builder.load(element(builder, values, q, FLOAT)))
                    inputs = vectors.load(_feature(builder, lanes, columns, q, x))
                    builder.store(vectors.multiply_add(value, inputs, builder.load(total)), total)
        vectors.store(reduce(builder.fadd, map(builder.load, totals)), output)


@inlined(constants=2)
def add_gradients(
    builder: Value,
    lanes: int,
    needs_inputs: int,
    rows: Value,
    pointers: Value,
    columns: Value,
    values: Value,
    x: Value,
    dy: Value,
    stride: Value,
    dx: Value,
    gradient: Value,
) -> None:
    """gradient[q] += dy[row] . x[columns[q]], and if needed dx[columns[q]] += values[q] * dy[row], in each row.

    The connections q of a row go from pointers[row] to before pointers[row + 1]. The rows of dy lie `stride` bytes
    apart.
    """
    vectors, sums = Vectors(builder), Vectors(builder, FOUR)

    def products(q: Value) -> Value:
        return _products(vectors, dys, _feature(builder, lanes, columns, q, x))

    with loop(builder, integer(0), rows) as row, connections(builder, pointers, row) as (begin, end):
        start = builder.add(dy, builder.mul(row, stride))
        dys = [vectors.load(start, offset) for offset in range(0, lanes, REGISTER)]
        fours = builder.sub(end, builder.and_(builder.sub(end, begin), integer(FOUR - 1)))
        with loop(builder, begin, fours, FOUR) as q:
            each = [builder.add(q, integer(i)) for i in range(FOUR)]
            sums.add_to(moved(builder, gradient, 4, q), sums.four_sums(*map(products, each)))
            for one in each if needs_inputs else ():
                _add_to_input(vectors, lanes, columns, values, one, dys, dx)
        with loop(builder, fours, end) as q:
            _add_to_float(builder, element(builder, gradient, q, FLOAT), vectors.sum(products(q)))
            if needs_inputs:
                _add_to_input(vectors, lanes, columns, values, q, dys, dx)


def _add_to_float(builder: Value, place: Value, number: Value) -> None:
    builder.store(builder.fadd(builder.load(place), number), place)


@inlined()
def add_block(builder: Value, total: Value, stride: Value, left: Value, right: Value, batch: Value) -> None:
    """total[i, 0:16] += left[b, i] * right[b, 0:16] for 6 rows i and all b, each product rounded before it is added.

    The rows of total lie `stride` bytes apart.
    """
    vectors = Vectors(builder)
    rows = [builder.add(total, builder.mul(stride, integer(i))) for i in range(ROWS)]
    sums = [variable(builder, vectors.load(row)) for row in rows]
    with loop(builder, integer(0), batch) as b:
        others = vectors.load(moved(builder, right, 4 * COLUMNS, b))
        for i, partial in enumerate(sums):
            factor = vectors.splat(builder.load(element(builder, left, moved(builder, integer(i), ROWS, b), FLOAT)))
            builder.store(builder.fadd(builder.load(partial), builder.fmul(factor, others)), partial)
    for row, partial in zip(rows, sums, strict=True):
        vectors.store(builder.load(partial), row)


@inlined()
def transpose(builder: Value, source: Value, source_stride: Value, target: Value, target_stride: Value) -> None:
    """target[i, j] = source[j, i] for 16 x 16 numbers; the rows lie some bytes apart."""
    vectors = Vectors(builder)
    starts = [builder.add(source, builder.mul(source_stride, integer(i))) for i in range(REGISTER)]
    for i, row in enumerate(_transposed(vectors, [vectors.load(start) for start in starts])):
        vectors.store(row, builder.add(target, builder.mul(target_stride, integer(i))))


def _feature(builder: Value, lanes: int, columns: Value, q: Value, panel: Value) -> Value:
    """The address in a packed panel of the feature of a connection."""
    column = builder.zext(builder.load(element(builder, columns, q, COLUMN)), INT)
    return moved(builder, panel, 4 * lanes, column)


def _products(vectors: Vectors, ones: list[Value], others: Value) -> Value:
    """The products of vectors and those at an address, added up to one vector."""
    total = vectors.zero()
    for i, one in enumerate(ones):
        total = vectors.multiply_add(one, vectors.load(others, i * REGISTER), total)
    return total


def _add_to_input(
    vectors: Vectors, lanes: int, columns: Value, values: Value, q: Value, dys: list[Value], dx: Value
) -> None:
    """dx[columns[q]] += values[q] * dys."""
    builder = vectors.builder
    value = vectors.splat(builder.load(element(builder, values, q, FLOAT)))
    target = _feature(builder, lanes, columns, q, dx)
    for i, one in enumerate(dys):
        vectors.store(vectors.multiply_add(value, one, vectors.load(target, i * REGISTER)), target, i * REGISTER)


def _transposed(vectors: Vectors, rows: list[Value]) -> list[Value]:
    """The columns of a square of vectors, by four rounds that interleave the two halves of the rows."""
    half = REGISTER // 2
    low = [lane for i in range(half) for lane in (i, REGISTER + i)]
    high = [lane + half for lane in low]
    for _ in range(4):
        pairs = zip(rows[:half], rows[half:], strict=True)
        rows = [vectors.shuffle(one, other, lanes) for one, other in pairs for lanes in (low, high)]
    return rows
