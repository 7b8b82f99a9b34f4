"""The steps of a network that multiply: by active weights, or by dense ones."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from rigl_core.serving.step import Arrays, Bare, Settings, check_inputs, floats
from rigl_core.sparse.convolution import Convolution
from rigl_core.sparse.images import convolve
from rigl_core.sparse.index import Floats, Index
from rigl_core.sparse.kernels import best_convolutions, best_kernels
from rigl_core.sparse.places import Flat
from rigl_core.sparse.support import PAYS_BELOW

WIDE, WIDEST = 2048, 4096
"""Columns of a tile. They are more than in training, whose larger batches leave less room in a cache."""
FEW = 0.05
"""The density below which tiles are widest."""


def pays(weight: npt.NDArray[Any]) -> bool:
    """Whether a matrix multiplies faster by its active weights alone: at most a quarter of its weights is not 0."""
    return int(np.count_nonzero(weight)) <= PAYS_BELOW * weight.size


def _tiled(flat: Flat, rows: int, cols: int) -> Index:
    """The index of the active connections of a matrix (outputs, inputs), in tiles that suit inference."""
    width = WIDE if flat.size >= FEW * rows * cols else WIDEST
    return Index.of(flat, rows, cols, width=max(min(width, cols), 1))


class Dense(Bare):
    """y = W x + b with all weights.

    Attributes:
        weight: float32 (outputs, inputs).
        bias: float32 (outputs,).
    """

    kind: ClassVar[str] = "dense"

    def __init__(self, weight: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> None:
        shape = np.shape(weight)
        if len(shape) != 2:
            raise ValueError(f"weight has shape {shape}: it must be (outputs, inputs).")
        self.weight = floats("weight", weight, shape)
        self.bias = floats("bias", np.zeros(shape[0]) if bias is None else bias, shape[:1])

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        check_inputs(self, x, self.weight.shape[1], 2)
        y: Floats = self.weight @ x
        y += self.bias[:, None]
        return y

    @property
    def arrays(self) -> Arrays:
        return {"weight": self.weight, "bias": self.bias}


class _Sparse:
    """What both kinds of sparse products hold.

    Attributes:
        index: where the active weights are (`rigl_core.sparse.index`).
        values: these, float32, in storage order.
        bias: float32 (outputs,).
    """

    def __init__(self, index: Index, values: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> None:
        index.check()
        self.index = index
        self.values = floats("values", values, (index.size,))
        self.bias = floats("bias", np.zeros(index.rows) if bias is None else bias, (index.rows,))

    @property
    def arrays(self) -> Arrays:
        return {
            "pointers": self.index.pointers,
            "columns": self.index.columns,
            "values": self.values,
            "bias": self.bias,
        }

    @property
    def settings(self) -> Settings:
        return {"rows": self.index.rows, "cols": self.index.cols, "width": self.index.width}


class Linear(_Sparse):
    """y = W x + b with the active weights."""

    kind: ClassVar[str] = "linear"

    @classmethod
    def of(cls, weight: npt.ArrayLike, bias: npt.ArrayLike | None = None, *, inputs_first: bool = False) -> Linear:
        """The step of a dense array that is 0 outside its mask.

        Args:
            weight: (outputs, inputs), or (inputs, outputs).
            bias: (outputs,); None for zeros.
            inputs_first: whether the weight is (inputs, outputs), as in JAX and TensorFlow.

        Raises:
            ValueError: if an array has another shape.
        """
        own = np.asarray(weight, np.float32)
        if own.ndim != 2:
            raise ValueError(f"weight has shape {own.shape}: it must have two axes.")
        own = np.ascontiguousarray(own.T if inputs_first else own)
        index = _tiled(np.flatnonzero(own).astype(np.int32), *own.shape)
        return cls(index, index.values(own), bias)

    @classmethod
    def from_index(cls, index: Index, values: Floats, bias: npt.ArrayLike | None = None) -> Linear:
        """The step of active weights, as a layer of a sparse training holds them.

        Args:
            index: where they are.
            values: float32, in its storage order.
            bias: (outputs,); None for zeros.
        """
        rows, cols = np.divmod(index.flat(), index.cols)
        if index.inputs_first:
            cols, rows = np.divmod(index.flat(), index.rows)
        flat = rows * np.int32(index.cols) + cols
        order = np.argsort(flat)
        own = _tiled(flat[order], index.rows, index.cols)
        return cls(own, values[order[np.searchsorted(flat[order], own.flat())]], bias)

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        check_inputs(self, x, self.index.cols, 2)
        y = best_kernels().forward(self.index, self.values, np.ascontiguousarray(x), threads=threads)
        y += self.bias[:, None]
        return y


class Conv(_Sparse):
    """A two-dimensional convolution with the active weights.

    Attributes:
        convolution: what it does besides.
    """

    kind: ClassVar[str] = "conv"

    def __init__(
        self, index: Index, values: npt.ArrayLike, bias: npt.ArrayLike | None = None, *, convolution: Convolution
    ) -> None:
        super().__init__(index, values, bias)
        _check(convolution, index)
        self.convolution = convolution

    @classmethod
    def of(cls, weight: npt.ArrayLike, bias: npt.ArrayLike | None = None, *, convolution: Convolution) -> Conv:
        """The step of a dense array that is 0 outside its mask.

        Args:
            weight: (outputs, inputs of a group, height, width).
            bias: (outputs,); None for zeros.
            convolution: what it does besides.

        Raises:
            ValueError: if an array has another shape.
        """
        own = np.ascontiguousarray(weight, np.float32)
        if own.ndim != 4 or own.shape[2:] != convolution.kernel:
            raise ValueError(f"weight has shape {own.shape}: it must be (outputs, inputs, *{convolution.kernel}).")
        flat, size = np.flatnonzero(own).astype(np.int32), own[:1].size
        index = Index.of(flat, own.shape[0], size, kernel=own.shape[2] * own.shape[3])
        return cls(index, index.values(own), bias, convolution=convolution)

    def __call__(self, x: Floats, threads: int = 1) -> Floats:
        kernel = self.convolution.kernel[0] * self.convolution.kernel[1]
        check_inputs(self, x, self.index.cols // kernel * self.convolution.groups, 4)
        y = convolve(self.convolution, self.index, self.values, x, kernels=best_convolutions(), threads=threads)
        y += self.bias[:, None, None]
        return y

    @property
    def settings(self) -> Settings:
        own = self.convolution
        return {
            **super().settings,
            "kernel": list(own.kernel),
            "stride": list(own.stride),
            "padding": [list(pair) for pair in own.padding],
            "dilation": list(own.dilation),
            "groups": own.groups,
        }


def _check(convolution: Convolution, index: Index) -> None:
    """Refuse a convolution that no kernel can compute, or whose kernel or groups do not fit the matrix."""
    least = {"kernel": 1, "stride": 1, "dilation": 1}
    pairs = [(name, getattr(convolution, name), low) for name, low in least.items()]
    pairs += [("padding", pair, 0) for pair in convolution.padding]
    for name, pair, low in pairs:
        if len(pair) != 2 or not all(isinstance(number, int) and number >= low for number in pair):
            raise ValueError(f"{name} is {pair}: it must be two whole numbers of at least {low}.")
    kernel, groups = convolution.kernel[0] * convolution.kernel[1], convolution.groups
    if (
        len(convolution.padding) != 2
        or groups < 1
        or index.rows % groups
        or index.cols % kernel
        or index.kernel != kernel
    ):
        raise ValueError(
            f"a matrix of {index.rows} rows and {index.cols} columns is no convolution with a kernel of {kernel} "
            f"positions and {groups} groups."
        )
