"""The kernels by numba: against those by NumPy, which define them, and against dense products."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_core.sparse import numba_kernels, numpy_kernels
from rigl_core.sparse.index import Index
from rigl_core.sparse.kernels import Kernels, best_kernels
from rigl_core.sparse.threads import ranges
from rigl_core.sparse.threads import run as run_works

Floats = npt.NDArray[np.float32]
THREADS = (1, 2, 3)


class Layer(NamedTuple):
    """A layer with its inputs and the gradient of its outputs; all arrays are read-only."""

    index: Index
    values: Floats
    x: Floats
    dy: Floats

    @property
    def dense(self) -> Floats:
        """The weights (rows, cols)."""
        flat = self.index.dense(self.values)
        shape = self.index.rows, self.index.cols
        return flat.reshape(shape[::-1]).T if self.index.inputs_first else flat.reshape(shape)


def layer_of(
    rows: int, cols: int, batch: int, density: float, *, width: int | None = None, inputs_first: bool = False
) -> Layer:
    rng = np.random.default_rng([rows, cols, batch])
    flat = np.flatnonzero(rng.random(rows * cols) < density).astype(np.int32)
    index = Index.of(flat, rows, cols, width=width, inputs_first=inputs_first)
    shapes = (flat.size,), (cols, batch), (rows, batch)
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    for array in arrays:
        array.flags.writeable = False
    return Layer(index, *arrays)


@pytest.fixture(autouse=True)
def all_threads_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a layer is, it is computed in as many threads as the test asks for."""
    monkeypatch.setattr(numba_kernels, "WORTH_A_THREAD", 1)


@np.errstate(invalid="ignore")  # a BLAS may compute with numbers that lie behind its arrays, and not use the result
def check(layer: Layer, threads: int) -> None:
    index, values, x, dy = layer
    near = {"rtol": 1e-4, "atol": 1e-4}
    y = numba_kernels.forward(index, values, x, threads=threads)
    np.testing.assert_allclose(y, numpy_kernels.forward(index, values, x), **near)
    np.testing.assert_allclose(y, layer.dense @ x, **near)
    dx, gradient = numba_kernels.backward(index, values, x, dy, threads=threads)
    expected = numpy_kernels.backward(index, values, x, dy)
    np.testing.assert_allclose(dx, expected[0], **near)
    np.testing.assert_allclose(dx, layer.dense.T @ dy, **near)
    np.testing.assert_allclose(gradient, expected[1], **near)
    none, same = numba_kernels.backward(index, values, x, dy, needs_inputs=False, threads=threads)
    assert none is None
    np.testing.assert_array_equal(same, gradient)
    assert {y.dtype, dx.dtype, gradient.dtype} == {np.dtype(np.float32)}
    assert y.flags.c_contiguous
    assert dx.flags.c_contiguous


@pytest.mark.parametrize("kernels", [numba_kernels, numpy_kernels])
def test_infinite_numbers_go_on(kernels: Kernels) -> None:
    layer = layer_of(5, 40, 3, 0.5)
    x, dy = np.full_like(layer.x, 1e38), np.full_like(layer.dy, np.inf)
    y = kernels.forward(layer.index, np.full_like(layer.values, 10), x)
    dx, gradient = kernels.backward(layer.index, layer.values, x, dy)
    assert dx is not None
    assert np.isinf(y).all()
    assert np.isinf(gradient).all()
    assert not np.isfinite(dx[np.unique(layer.index.flat() % 40)]).any()


@pytest.mark.parametrize("batch", [0, 1, 16, 17, 32, 33, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("threads", THREADS)
def test_products_of_any_batch(batch: int, threads: int) -> None:
    check(layer_of(70, 300, batch, 0.1), threads)


@pytest.mark.parametrize(
    ("rows", "cols", "density"),
    [(0, 5, 1), (5, 0, 1), (5, 7, 0), (1, 1, 1), (33, 1, 0.5), (1, 400, 0.1), (30, 1100, 0.002), (200, 20, 1)],
)
@pytest.mark.parametrize("inputs_first", [False, True])
def test_products_of_any_shape(rows: int, cols: int, density: float, inputs_first: bool) -> None:
    check(layer_of(rows, cols, 70, density, inputs_first=inputs_first), threads=2)


@given(
    rows=st.integers(0, 40),
    cols=st.integers(0, 90),
    batch=st.integers(0, 140),
    density=st.sampled_from([0, 0.02, 0.3, 1]),
    width=st.integers(1, 100),
    threads=st.sampled_from(THREADS),
)
def test_products_of_any_tiles(rows: int, cols: int, batch: int, density: float, width: int, threads: int) -> None:
    check(layer_of(rows, cols, batch, density, width=width), threads)


@pytest.mark.parametrize("batch", [48, 200])
@pytest.mark.parametrize("needs_inputs", [False, True])
def test_the_number_of_threads_changes_no_bit(batch: int, needs_inputs: bool) -> None:
    layer = layer_of(150, 400, batch, 0.1)
    results = []
    for threads in THREADS:
        y = numba_kernels.forward(*layer[:3], threads=threads)
        dx, gradient = numba_kernels.backward(*layer, needs_inputs=needs_inputs, threads=threads)
        results.append([array.tobytes() for array in (y, dx, gradient) if array is not None])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    ("rows", "others", "batch"), [(64, 100, 50), (6, 16, 16), (5, 15, 1), (7, 33, 200), (13, 48, 0)]
)
@pytest.mark.parametrize("threads", THREADS)
def test_added_products_have_the_bits_of_their_definition(rows: int, others: int, batch: int, threads: int) -> None:
    check_products(rows, others, batch, threads)


@given(st.integers(0, 20), st.integers(0, 70), st.integers(0, 40), st.sampled_from(THREADS))
def test_added_products_of_any_shape(rows: int, others: int, batch: int, threads: int) -> None:
    check_products(rows, others, batch, threads)


def check_products(rows: int, others: int, batch: int, threads: int) -> None:
    _, _, right, left = layer_of(rows, others, batch, 0)
    total = np.random.default_rng(1).standard_normal((rows, others), dtype=np.float32)
    expected = total.copy()
    numpy_kernels.add_products(left, right, expected)
    numba_kernels.add_products(left, right, total, threads=threads)
    assert total.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (16, 16), (17, 40), (100, 33), (48, 64)])
@pytest.mark.parametrize("threads", THREADS)
def test_transposed_copies(shape: tuple[int, int], threads: int) -> None:
    array = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    array.flags.writeable = False
    result = numba_kernels.transposed(array, threads=threads)
    np.testing.assert_array_equal(result, numpy_kernels.transposed(array))
    assert result.flags.c_contiguous


def test_numbers_that_are_not_finite_pass_through_active_connections_alone() -> None:
    layer = layer_of(60, 200, 70, 0.1)
    index, values, x, dy = (array.copy() if isinstance(array, np.ndarray) else array for array in layer)
    x[3, 69], x[5, 1], dy[7, 0], dy[9, 64] = np.nan, np.inf, -np.inf, np.nan
    with np.errstate(invalid="ignore"):
        expected = numpy_kernels.forward(index, values, x), *numpy_kernels.backward(index, values, x, dy)
    results = numba_kernels.forward(index, values, x), *numba_kernels.backward(index, values, x, dy)
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-4)
        assert not np.isfinite(result).all()


def test_one_compilation_is_for_all_shapes() -> None:
    check(layer_of(20, 40, 70, 0.3), threads=1)
    index, values, x, dy = (a.copy() if isinstance(a, np.ndarray) else a for a in layer_of(20, 40, 70, 0.3))
    check(Layer(index, values, x, dy), threads=1)  # these arrays are not read-only
    loops = numba_kernels.loops
    assert [len(loop.signatures) for loop in (loops.forward_rows, loops.backward_tile, loops.product_columns)] == [
        1
    ] * 3


@pytest.mark.parametrize("threads", THREADS)
def test_what_a_work_raises_is_raised(threads: int) -> None:
    done = []

    def fail(_: None) -> None:
        raise RuntimeError("the work failed")

    with pytest.raises(RuntimeError, match="the work failed"):
        run_works([fail, *[done.append] * 5], threads, lambda: None)
    assert len(done) <= 5


@pytest.mark.parametrize("wrong", ["dtype", "order", "rows", "axes"])
def test_arrays_that_do_not_fit_are_refused(wrong: str) -> None:
    index, values, x, dy = layer_of(20, 40, 70, 0.3)
    change = {
        "dtype": lambda array: array.astype(np.float64),
        "order": np.asfortranarray,
        "rows": lambda array: array[:-1],
        "axes": lambda array: array[..., None],
    }[wrong]
    total = np.zeros((20, 40), np.float32)
    with pytest.raises(ValueError, match="x must be a float32 array of shape"):
        numba_kernels.forward(index, values, change(x))
    with pytest.raises(ValueError, match="dy must be a float32 array of shape"):
        numba_kernels.backward(index, values, x, change(dy))
    with pytest.raises(ValueError, match="must be a float32 array of shape"):
        numba_kernels.add_products(dy, change(x), total)
    with pytest.raises(ValueError, match="total must be a float32 array of shape"):
        numba_kernels.add_products(dy, x, change(total))
    with pytest.raises(ValueError, match="values must be a float32 array of shape"):
        numba_kernels.forward(index, values[:-1], x)


def test_helpers_are_kept_off_the_callers_processor() -> None:
    """In a virtual machine, Linux would wake them there, and they would wait for their caller."""
    code = """
import os, sys
from rigl_core.sparse import threads
if sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1:
    before = os.sched_getaffinity(0)
    for _ in range(3):
        threads.run([lambda _: None] * 4, 2, lambda: None)
    helpers = threads._helpers()
    processor = min(before)
    helpers._keep_off(processor)
    assert helpers._threads
    assert all(os.sched_getaffinity(helper) == before - {processor} for helper in helpers._threads)
    assert os.sched_getaffinity(0) == before
"""
    run(code)


@given(st.integers(0, 100), st.integers(1, 9), st.sampled_from([1, 16]))
def test_ranges_cover_everything_once(size: int, parts: int, step: int) -> None:
    cut = ranges(size, parts, step)
    assert [number for begin, end in cut for number in range(begin, end)] == list(range(size))
    assert len(cut) <= parts
    assert all(begin % step == 0 for begin, _ in cut)


def run(code: str, **environment: str) -> str:
    """The output of a process that must end by itself, without an error."""
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code]
    environment = {**os.environ, **environment}
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


USE = """
import numpy as np
from rigl_core.sparse import numba_kernels
from rigl_core.sparse.index import Index
numba_kernels.WORTH_A_THREAD = 1
index = Index.of(np.arange(0, 40_000, 7, dtype=np.int32), 200, 200)
def use():
    x = np.ones((200, 100), np.float32)
    y = numba_kernels.forward(index, np.ones(index.size, np.float32), x, threads=3)
    return float(y.sum())
"""
FORK = """
import os, sys
before = use()
child = os.fork()
if child == 0:
    sys.exit(0 if use() == before else 1)
assert os.waitpid(child, 0)[1] == 0
assert use() == before
print("ended")
"""


@pytest.mark.parametrize("beside", ["", "import torch\ntorch.ones(500, 500) @ torch.ones(500, 500)\n"])
def test_a_fork_after_threads_does_not_hang(beside: str) -> None:
    assert "ended" in run(USE + beside + FORK + beside)


def test_compiled_code_is_told_of_and_kept(tmp_path: os.PathLike[str]) -> None:
    noticed = "from rigl_core.sparse import compiling\ncompiling.SLOW = 0.0\n"  # as if the machine were that busy
    first, second = (run(noticed + USE + "use()", NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert "The kernels of sparse layers were compiled in " in first
    assert str(tmp_path) in first
    assert second == ""


def test_without_a_folder_for_compiled_code() -> None:
    nowhere = "from numba.core import caching\ncaching.CacheImpl._locator_classes = []\n"
    assert "no folder for them is writable" in run(nowhere + USE + "use()")


def test_numba_is_loaded_with_its_kernels_only() -> None:
    code = "import sys, rigl_core.sparse.kernels, rigl_core.sparse.numpy_kernels; print('numba' in sys.modules)"
    assert run(code) == "False\n"


def test_a_numba_that_compiles_nothing_is_refused() -> None:
    code = """
from rigl_core.sparse.kernels import Kernels, best_kernels
try:
    best_kernels()
except ImportError as error:
    print(error)
"""
    assert "NUMBA_DISABLE_JIT is set" in run(code, NUMBA_DISABLE_JIT="1")


def test_the_best_kernels_are_numbas() -> None:
    assert best_kernels() is numba_kernels


def test_without_numba_a_warning_names_the_extra() -> None:
    code = """
import sys, warnings
sys.modules["numba"] = None
from rigl_core import SparsityWarning
from rigl_core.sparse.kernels import Kernels, best_kernels
from rigl_core.sparse.threads import ranges
from rigl_core.sparse.threads import run as run_works
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    print(best_kernels().__name__)
print([warning.category is SparsityWarning for warning in told], told[0].message)
"""
    output = run(code)
    assert "rigl_core.sparse.numpy_kernels\n[True]" in output
    assert "pip install 'rigl-core[sparse]'" in output


@pytest.mark.parametrize("error", ["ImportError('numba is broken')", "ModuleNotFoundError('no', name='llvmlite')"])
def test_a_broken_numba_is_not_passed_over(error: str) -> None:
    code = f"""
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "numba":
            raise {error}
sys.meta_path.insert(0, Broken())
from rigl_core.sparse.kernels import Kernels, best_kernels
from rigl_core.sparse.threads import ranges
from rigl_core.sparse.threads import run as run_works
try:
    best_kernels()
except ImportError as error:
    print("raised", repr(error))
"""
    assert "raised" in run(code)
