"""One convolution of torch, forward and backward for inputs and weights: truly sparse, or dense."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import rigl_backends.torch
from rigl_core import SparsityWarning, Static, Uniform

Act = Callable[[], object]


def make(contender: str, baseline: str, layer: Mapping[str, Any]) -> tuple[Act, Act] | None:
    """What is measured, and the dense convolution; None for what is no convolution.

    Args:
        contender: ``"convolution 256 128 3 14"``: inputs, outputs, the side of the kernel and that of the planes.
        baseline: ``"dense"``.
        layer: batch, density and threads.
    """
    kind, *numbers = contender.split()
    if kind != "convolution":
        return None
    inputs, outputs, kernel, side = map(int, numbers)
    torch.set_num_threads(layer["threads"])
    torch.manual_seed(0)
    dense, sparse = (nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding="same")) for _ in range(2))
    recipe = Static(1 - layer["density"], distribution=Uniform(first_dense=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsityWarning)
        optimizer = torch.optim.SGD(sparse.parameters(), 0.1)
        rigl_backends.torch.sparsify(sparse, optimizer, recipe, storage={"*": "active"})
    x = torch.randn(layer["batch"], inputs, side, side, requires_grad=True)
    dy = torch.randn(layer["batch"], outputs, side, side)
    return _gradients(sparse, x, dy), _gradients(dense, x, dy)


def _gradients(model: nn.Module, x: torch.Tensor, dy: torch.Tensor) -> Act:
    wanted = [x, *model.parameters()]
    return lambda: torch.autograd.grad(model(x), wanted, dy)
