"""Truly sparse convolutions in NumPy: a training is that with a dense array and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rigl_backends.numpy import SGD, SparseTraining, sparsify
from rigl_core import Constant, RigL, Uniform, UpdateSchedule
from rigl_core.adapter import Layer

Floats = npt.NDArray[np.float32]
SCHEDULE = UpdateSchedule(end=20, every=2)
RECIPE = RigL(0.7, schedule=SCHEDULE, drop_fraction=Constant(0.4), distribution=Uniform(first_dense=False))
FIRST = Layer("conv", (6, 2, 3, 2), in_axes=(1,), out_axes=(0,), groups=2)
LAST = Layer("conv", (3, 2, 4, 6), in_axes=(2,), out_axes=(3,))


def make(layer: Layer, storage: Any) -> tuple[dict[str, Floats], SGD, SparseTraining]:
    params = {"conv": np.random.default_rng(0).normal(size=layer.shape).astype(np.float32)}
    optimizer = SGD(params, 0.1, momentum=0.9)
    return params, optimizer, sparsify(params, optimizer, RECIPE, layers=[layer], storage=storage)


def windows(x: Floats, kernel: tuple[int, int], stride: tuple[int, int], padding: int, dilation: int) -> Floats:
    """What each output sees: (samples, channels, height, width, *kernel) of the outputs."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    size = [dilation * (length - 1) + 1 for length in kernel]
    all_windows = np.lib.stride_tricks.sliding_window_view(padded, size, (2, 3))
    return all_windows[:, :, :: stride[0], :: stride[1], ::dilation, ::dilation]


def dense_products(layer: Layer, weight: Floats, x: Floats, dy: Floats | None, **options: Any) -> tuple[Floats, Floats]:
    """The outputs; and the dense gradient of the weight, in its shape, from an output gradient."""
    own = weight if layer is FIRST else weight.transpose(3, 2, 0, 1)
    seen = windows(x, own.shape[2:], **options)
    samples, channels = seen.shape[:2]
    parts = seen.reshape(samples, layer.groups, channels // layer.groups, *seen.shape[2:])
    kernels = own.reshape(layer.groups, -1, *own.shape[1:])
    y = np.einsum("ngihwkl,goikl->ngohw", parts, kernels).reshape(samples, own.shape[0], *seen.shape[2:4])
    dy = np.zeros_like(y) if dy is None else dy
    outputs = dy.reshape(samples, layer.groups, -1, *dy.shape[2:])
    gradient = np.einsum("ngihwkl,ngohw->goikl", parts, outputs).reshape(own.shape)
    return y, gradient if layer is FIRST else gradient.transpose(2, 3, 1, 0)


@pytest.mark.parametrize("layer", [FIRST, LAST], ids=["first", "last"])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"),
    [((1, 1), 0, 1), ((2, 1), 1, 1), ((1, 3), 2, 2)],
    ids=["plain", "stride", "dilation"],
)
def test_a_training_is_that_with_a_dense_array(
    layer: Layer, stride: tuple[int, int], padding: int, dilation: int
) -> None:
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    params, optimizer, sparse = make(layer, "masks")
    own_params, own_optimizer, own = make(layer, {"conv": "active"})
    conv, rng = own.conv["conv"], np.random.default_rng(1)
    for _ in range(9):
        x = rng.normal(size=(3, 4, 8, 9)).astype(np.float32)
        y, _ = dense_products(layer, params["conv"], x, None, **options)
        np.testing.assert_allclose(conv(x, **options), y, rtol=1e-3, atol=1e-4)
        dy = rng.normal(size=y.shape).astype(np.float32)
        optimizer.step({"conv": dense_products(layer, params["conv"], x, dy, **options)[1].astype(np.float32)})
        halves = [conv.backward(part, own_dy, **options)[1] for part, own_dy in ((x[:1], dy[:1]), (x[1:], dy[1:]))]
        own_optimizer.step({"conv": halves[0] + halves[1]})
        np.testing.assert_array_equal(own.masks["conv"], sparse.masks["conv"])
        np.testing.assert_allclose(conv.dense(), params["conv"], rtol=1e-3, atol=1e-4)
    assert own_params["conv"].shape == (conv.index.size,)


def test_the_gradient_of_inputs() -> None:
    """A step along it changes the outputs' sum by its square, as the products are linear."""
    _, _, own = make(FIRST, {"conv": "active"})
    conv, options = own.conv["conv"], {"stride": 2, "padding": (1, 0)}
    x = np.random.default_rng(2).normal(size=(2, 4, 7, 6)).astype(np.float32)
    y = conv(x, **options)
    dx, _ = conv.backward(x, np.ones_like(y), **options)
    assert dx is not None
    np.testing.assert_allclose((conv(x + dx, **options) - y).sum(), (dx**2).sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("x", "options", "error", "said"),
    [
        (np.zeros((1, 4, 5, 5)), {}, TypeError, "x is float64"),
        (np.zeros((1, 3, 5, 5), np.float32), {}, ValueError, r"reads \(samples, 4, height, width\)"),
        (np.zeros((4, 5, 5), np.float32), {}, ValueError, "x has shape"),
        (np.zeros((1, 4, 2, 5), np.float32), {}, ValueError, "does not fit into"),
        (np.zeros((1, 4, 5, 5), np.float32), {"stride": None}, ValueError, "stride is None: give a whole number"),
        (np.zeros((1, 4, 5, 5), np.float32), {"padding": (1, 2, 3)}, ValueError, "padding is .* or two of them"),
        (
            np.zeros((1, 4, 5, 5), np.float32),
            {"stride": 0},
            ValueError,
            "stride is 0: give a whole number",
        ),
        (np.zeros((1, 4, 5, 5), np.float32), {"padding": (1, 2, 3)}, ValueError, "padding is"),
    ],
)
def test_wrong_inputs(x: Floats, options: Any, error: type[Exception], said: str) -> None:
    _, _, own = make(FIRST, {"conv": "active"})
    with pytest.raises(error, match=said):
        own.conv["conv"](x, **options)
    with pytest.raises(ValueError, match="dy is float32 of shape"):
        own.conv["conv"].backward(np.zeros((1, 4, 5, 5), np.float32), np.zeros((1, 6, 1, 1), np.float32))
