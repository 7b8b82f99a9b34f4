"""The products of images and the active weights of a convolution, with the planes and windows that kernels read."""

from __future__ import annotations

from typing import Any

import numpy as np

from rigl_core.sparse.convolution import Convolution, Pair
from rigl_core.sparse.convolution_gradients import Sample
from rigl_core.sparse.index import Floats, Index
from rigl_core.sparse.kernels import Convolutions


def convolve(
    convolution: Convolution, index: Index, values: Floats, x: Floats, *, kernels: Convolutions, threads: int = 1
) -> Floats:
    """The outputs without a bias (samples, channels, height, width).

    Args:
        convolution: what it does.
        index: where the active weights are.
        values: these, in storage order.
        x: inputs (samples, channels, height, width), of any strides.
        kernels: make the products.
        threads: the threads to work with.

    Raises:
        ValueError: if the inputs are smaller than the kernel.
    """
    windows, planes = convolution.windows(x.shape, index.rows), convolution.planes(x)
    return kernels.forward(index, values, planes, windows, threads=threads)


def convolve_back(
    convolution: Convolution,
    index: Index,
    values: Floats,
    x: Floats,
    dy: Floats,
    *,
    kernels: Convolutions,
    needs_inputs: bool = True,
    threads: int = 1,
) -> tuple[Floats | None, Floats, Sample]:
    """The gradients of the inputs, or None, and of the active weights; and the sample that an update may read.

    Args are those of `convolve`, and ``dy``, the contiguous gradient of the outputs.

    Raises:
        ValueError: as `convolve`; or if ``dy`` has another shape than the outputs.
    """
    windows, planes = convolution.windows(x.shape, index.rows), convolution.planes(x)
    dplanes, gradient = kernels.backward(index, values, planes, windows, dy, needs_inputs=needs_inputs, threads=threads)
    dx = None if dplanes is None else convolution.inputs(dplanes, x.shape)
    return dx, gradient, (planes, windows, dy)


def pair_of(name: str, option: Any, least: int) -> Pair:
    """Two numbers for height and width, of which an option of a convolution may be one.

    Raises:
        ValueError: naming the option.
    """
    pair = (option, option) if isinstance(option, int | np.integer) else option
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(_is_whole(number, least) for number in pair):
        raise ValueError(f"{name} is {option!r}: give a whole number of at least {least}, or two of them.")
    return int(pair[0]), int(pair[1])


def _is_whole(number: Any, least: int) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and int(number) >= least
