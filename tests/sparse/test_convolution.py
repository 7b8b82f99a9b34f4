"""Sparse convolutions: the kernels against their definition in NumPy, and against torch's dense convolution."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from rigl_core.sparse import gradients, numba_convolutions, numba_kernels, numpy_convolutions, numpy_kernels
from rigl_core.sparse.convolution import Convolution
from rigl_core.sparse.convolution_gradients import ConvolutionProducts
from rigl_core.sparse.index import Index
from rigl_core.sparse.kernels import best_convolutions
from rigl_core.sparse.places import width_for
from rigl_core.testing.checks import checks

Floats = npt.NDArray[np.float32]
Shape = tuple[int, int, int, int]
NEAR = {"rtol": 1e-4, "atol": 1e-4}
PLAIN = Convolution((3, 3), padding=((1, 1), (1, 1)))
CONVOLUTIONS = {
    "plain": PLAIN,
    "one position": Convolution((1, 1)),
    "no padding": Convolution((3, 3)),
    "uneven": Convolution((2, 5), padding=((1, 2), (0, 4))),
    "stride": Convolution((3, 3), (2, 2), ((1, 1), (1, 1))),
    "one position, stride": Convolution((1, 1), (2, 2)),
    "stride beyond the kernel": Convolution((2, 1), (3, 2), ((1, 0), (5, 0))),
    "dilation": Convolution((3, 3), dilation=(2, 3), padding=((2, 2), (3, 3))),
    "groups": Convolution((3, 3), padding=((1, 1), (1, 1)), groups=3),
    "all": Convolution((3, 2), (2, 3), ((1, 2), (3, 0)), (3, 2), groups=2),
}


class Case(NamedTuple):
    """A layer with its inputs and the gradient of its outputs (images, channels, height, width)."""

    convolution: Convolution
    index: Index
    values: Floats
    x: Floats
    dy: Floats


def case_of(
    convolution: Convolution, shape: Shape = (3, 6, 11, 9), rows: int = 12, density: float = 0.3, width: int = 24
) -> Case:
    rng = np.random.default_rng(0)
    kernel = convolution.kernel[0] * convolution.kernel[1]
    cols = shape[1] // convolution.groups * kernel
    flat = np.flatnonzero(rng.random(rows * cols) < density).astype(np.int32)
    index = Index.of(flat, rows, cols, width=max(width // kernel, 1) * kernel, kernel=kernel)
    height, across = convolution.outputs(shape[2:])
    shapes: list[tuple[int, ...]] = [(flat.size,), shape, (shape[0], rows, height, across)]
    arrays = [rng.standard_normal(own, dtype=np.float32) for own in shapes]
    for array in arrays:
        array.flags.writeable = False
    return Case(convolution, index, *arrays)


@pytest.fixture(autouse=True)
def all_threads_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a layer is, it is computed in as many threads as the test asks for."""
    monkeypatch.setattr(numba_kernels, "WORTH_A_THREAD", 1)


def by_torch(case: Case) -> tuple[Floats, Floats, Floats]:
    """The outputs, the gradient of the inputs, and that of the whole weight, flat; by a dense convolution."""
    own, index = case.convolution, case.index
    weight = torch.from_numpy(index.dense(case.values)).reshape(index.rows, -1, *own.kernel).requires_grad_()
    x = torch.tensor(case.x, requires_grad=True)
    (above, below), (left, right) = own.padding
    padded = functional.pad(x, (left, right, above, below))
    y = functional.conv2d(padded, weight, None, own.stride, 0, own.dilation, own.groups)
    dx, gradient = torch.autograd.grad(y, [x, weight], torch.tensor(case.dy))
    return y.detach().numpy(), dx.numpy(), gradient.reshape(-1).numpy()


def check(case: Case) -> None:
    """All kernels agree with torch's convolution, and those of numba give the same bits with any number of threads."""
    convolution, index, values, x, dy = case
    windows, planes = convolution.windows(x.shape, index.rows), convolution.planes(x)
    np.testing.assert_array_equal(convolution.inputs(planes, x.shape), x)
    expected, expected_dx, expected_gradient = by_torch(case)
    bits = []
    for kernels, threads in ((numpy_convolutions, 1), (numba_convolutions, 1), (numba_convolutions, 3)):
        y = kernels.forward(index, values, planes, windows, threads=threads)
        dplanes, gradient = kernels.backward(index, values, planes, windows, dy, threads=threads)
        assert dplanes is not None
        dx = convolution.inputs(dplanes, x.shape)
        np.testing.assert_allclose(y, expected, **NEAR)
        np.testing.assert_allclose(dx, expected_dx, **NEAR)
        np.testing.assert_allclose(gradient, index.values(expected_gradient), **NEAR)
        none, same = kernels.backward(index, values, planes, windows, dy, needs_inputs=False, threads=threads)
        assert none is None
        assert same.tobytes() == gradient.tobytes()
        bits.append([array.tobytes() for array in (y, dx, gradient)])
    assert bits[1] == bits[2]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_products_of_any_convolution(name: str) -> None:
    check(case_of(CONVOLUTIONS[name]))


@pytest.mark.parametrize("density", [0, 0.02, 1])
@pytest.mark.parametrize("shape", [(0, 6, 5, 5), (1, 6, 1, 1), (1, 1, 3, 21), (5, 40, 7, 7), (2, 3, 16, 32)])
def test_products_of_any_shape(shape: Shape, density: float) -> None:
    check(case_of(PLAIN, shape, rows=7, density=density, width=128))


@pytest.mark.parametrize("name", ["plain", "stride", "groups"])
def test_inputs_of_any_strides(name: str) -> None:
    """Such as channels last; what lies beside an input is read nowhere, even if it is not a number."""
    case = case_of(CONVOLUTIONS[name])
    around = np.full((3, 11, 9, 8), np.nan, np.float32)
    around[..., 1:7] = case.x.transpose(0, 2, 3, 1)
    check(case._replace(x=around[..., 1:7].transpose(0, 3, 1, 2)))


def test_numbers_that_are_not_finite_reach_what_sees_them_alone() -> None:
    """A kernel that copies beyond a line must not mix up its neighbours."""
    case = case_of(CONVOLUTIONS["no padding"])
    x, dy = case.x.copy(), case.dy.copy()
    x[0, 2, 0, 8], dy[1, 4, 0, 5] = np.nan, np.inf
    windows, planes = case.convolution.windows(x.shape, case.index.rows), case.convolution.planes(x)
    found = []
    for kernels in (numpy_convolutions, numba_convolutions):
        with np.errstate(invalid="ignore"):
            y = kernels.forward(case.index, case.values, planes, windows)
            dplanes, gradient = kernels.backward(case.index, case.values, planes, windows, dy)
            assert dplanes is not None
        found.append((y, case.convolution.inputs(dplanes, x.shape), gradient))
    for right, result in zip(*found, strict=True):
        np.testing.assert_allclose(result, right, **NEAR)
        assert not np.isfinite(result).all()


@checks("A2")
@pytest.mark.parametrize("name", ["plain", "all"])
@pytest.mark.parametrize("inputs_first", [False, True])
def test_the_dense_gradient_has_a_fixed_order(monkeypatch: pytest.MonkeyPatch, name: str, inputs_first: bool) -> None:
    """Products are added position after position, sample after sample; blocks, chunks and threads change no bit."""
    case = case_of(CONVOLUTIONS[name])
    index, kernel, groups = case.index, case.index.kernel, case.convolution.groups
    windows, planes = case.convolution.windows(case.x.shape, index.rows), case.convolution.planes(case.x)
    unfolded = [
        numpy_convolutions.unfolded(planes, windows.starts_of(group), windows.positions) for group in range(groups)
    ]
    dy = case.dy.transpose(1, 0, 2, 3).reshape(index.rows, -1)
    total, in_group = np.zeros((index.rows, index.cols), np.float32), index.rows // groups
    for _ in range(2):
        for position in range(windows.positions.size):
            for row in range(index.rows):
                total[row] += dy[row, position] * unfolded[row // in_group][:, position]
    if inputs_first:  # (kernel, inputs, outputs)
        total = total.reshape(index.rows, -1, kernel).transpose(2, 1, 0)
    np.testing.assert_allclose(total.sum(), 2 * by_torch(case)[2].sum(), rtol=1e-3, atol=1e-2)
    own = Index.of(np.arange(3, dtype=np.int32), index.rows, index.cols, inputs_first=inputs_first, kernel=kernel)
    for block, threads in ((1 << 17, 1), (256, 1), (256, 3)):
        monkeypatch.setattr("rigl_core.sparse.gradients.BLOCK", block)
        monkeypatch.setattr("rigl_core.sparse.convolution_gradients.BLOCK", block)
        for kernels, products in ((numpy_convolutions, numpy_kernels), (numba_convolutions, numba_kernels)):
            one = ConvolutionProducts(
                np.ones(3, np.float32),
                [(planes, windows, case.dy)],
                index=own,
                kernels=products,
                convolutions=kernels,
                threads=threads,
            )
            both = one + one
            blocks = [*both.blocks()]
            assert b"".join(part.tobytes() for _, part in blocks) == np.ascontiguousarray(total).tobytes()
            assert [first for first, _ in blocks] == [*np.cumsum([0, *(part.size for _, part in blocks[:-1])])]
            flat, values = (both * 0.5).sample()
            np.testing.assert_array_equal(values, total.reshape(-1)[flat] * np.float32(0.5))
    assert gradients.BLOCK == 256


def test_a_sample_of_the_dense_gradient_has_all_positions_of_the_kernel() -> None:
    """An update guesses by it how large gradients are; they may be small at the edges of a kernel."""
    index = Index.of(np.arange(3, dtype=np.int32), 2, 18 * 256, kernel=9)
    x = np.zeros((1, 512, 3, 3), np.float32)
    x[:, :, 1, 1] = 1
    windows = Convolution((3, 3)).windows(x.shape, 2)
    samples = [(x, windows, np.ones(windows.shape, np.float32))]
    kernels = {"kernels": numba_kernels, "convolutions": numba_convolutions}
    _, sample = ConvolutionProducts(np.ones(3, np.float32), samples, index=index, **kernels).sample()
    assert 0.08 < np.count_nonzero(sample) / sample.size < 0.14


def test_tiles_hold_whole_channels() -> None:
    """Threads that work on different tiles would write the gradient of the same inputs."""
    assert [width_for(9 * 40, density, 9) for density in (0.1, 0.05, 0.01)] == [126, 252, 360]
    assert width_for(4 * 1089, 0.1, 1089) == 1089
    flat = np.arange(0, 8 * 90, 5, dtype=np.int32)
    index, case = Index.of(flat, 8, 90, width=20), case_of(PLAIN, (1, 10, 5, 5), rows=8)
    windows, planes = PLAIN.windows(case.x.shape, 8), PLAIN.planes(case.x)
    with pytest.raises(ValueError, match="tiles of 20 columns, and a channel has 9: tiles must hold whole ones"):
        numba_convolutions.forward(index, np.ones(flat.size, np.float32), planes, windows)


@pytest.mark.parametrize("wrong", ["planes", "windows", "dy", "values"])
def test_arrays_that_do_not_fit_are_refused(wrong: str) -> None:
    convolution, index, values, x, dy = case_of(PLAIN)
    windows, planes = convolution.windows(x.shape, index.rows), convolution.planes(x)
    change = {
        "planes": {"planes": planes[..., :-1]},
        "windows": {"windows": convolution.windows((2, 9, 11, 9), index.rows)},
        "dy": {"dy": dy[:, :, :-1]},
        "values": {"values": values.astype(np.float64)},
    }[wrong]
    arguments = {"values": values, "planes": planes, "windows": windows, "dy": dy, **change}
    with pytest.raises(ValueError, match=rf"{wrong} (must be|are those of|have)"):
        numba_convolutions.backward(index, **arguments)  # type: ignore[arg-type]


def test_inputs_smaller_than_the_kernel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs have height and width \(2, 9\), which the kernel \(3, 3\)"):
        Convolution((3, 3)).windows((1, 1, 2, 9), 1)


def test_the_best_convolutions_are_numbas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_convolutions() is numba_convolutions
    monkeypatch.setattr("rigl_core.sparse.kernels.best_kernels", lambda: numpy_kernels)
    assert best_convolutions() is numpy_convolutions
