"""Trained networks for use without PyTorch, as a chain of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rigl_backends.torch.active_conv import SparseConv2d
from rigl_backends.torch.active_linear import SparseLinear
from rigl_backends.torch.leaving import pays
from rigl_core import serving
from rigl_core.adapter import Convolution

NOTHING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
"""Modules that do nothing in a network that is used."""


def export(modules: nn.Module | Iterable[nn.Module]) -> serving.Chain:
    """A trained network as steps of `rigl_core.serving`, which need no PyTorch::

        rigl_backends.torch.export(model).save("network.npz")
        network = rigl_core.serving.load("network.npz")  # elsewhere
        y = network(x)  # NumPy arrays

    Zeros of weights are left out, as they lie outside the masks; matrices with few zeros stay dense.

    Args:
        modules: an ``nn.Sequential``, or modules in the order in which they are called: Linear, Conv2d, BatchNorm,
            ReLU, LeakyReLU, Tanh, Sigmoid, SiLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d(1), Flatten, Dropout. They
            are exported as in ``eval()``.

    Raises:
        ValueError: naming a module that the chain cannot have, or whose options it does not know.
    """
    return serving.Chain(_step(name, module) for name, module in _chain(modules) if not isinstance(module, NOTHING))


def _chain(modules: nn.Module | Iterable[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """The modules one after the other, with names for messages."""
    if isinstance(modules, nn.Sequential) or not isinstance(modules, nn.Module):
        for number, module in enumerate(modules):
            for name, own in _chain(module):
                yield f"{number}.{name}" if name else str(number), own
    else:
        yield "", modules


def _step(name: str, module: nn.Module) -> serving.Step:
    for kind, make in STEPS.items():
        if isinstance(module, kind):
            return make(name, module)
    raise ValueError(
        f"module {name or 'modules'!r} is {type(module).__name__}, of which export makes no step: give the modules "
        f"that it calls, in their order, if it is a chain of {', '.join(sorted(kind.__name__ for kind in STEPS))}."
    )


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().to("cpu", torch.float32).numpy()


def _linear(name: str, module: nn.Linear) -> serving.Step:
    make = serving.Linear.of if pays(module.weight) else serving.Dense
    return make(_array(module.weight), _array(module.bias))


def _sparse_linear(name: str, module: SparseLinear) -> serving.Step:
    return serving.Linear.from_index(module.index, _array(module.weight), _array(module.bias))


def _conv(name: str, module: nn.Conv2d) -> serving.Step:
    if module.padding_mode != "zeros":
        raise _unknown(name, module, "padding_mode", module.padding_mode)
    (left, right, above, below) = module._reversed_padding_repeated_twice
    convolution = Convolution(
        kernel=_pair(module.kernel_size),
        stride=_pair(module.stride),
        padding=((above, below), (left, right)),
        dilation=_pair(module.dilation),
        groups=module.groups,
    )
    return serving.Conv.of(_array(module.weight), _array(module.bias), convolution=convolution)


def _sparse_conv(name: str, module: SparseConv2d) -> serving.Step:
    return serving.Conv(module.index, _array(module.weight), _array(module.bias), convolution=module.convolution)


def _norm(name: str, module: Any) -> serving.Step:
    if module.running_mean is None:
        raise _unknown(name, module, "track_running_stats", False)
    mean, variance = (_array(array).astype(np.float64) for array in (module.running_mean, module.running_var))
    weight, bias = (1, 0) if module.weight is None else (_array(module.weight), _array(module.bias))
    scale = weight / np.sqrt(variance + module.eps)
    return serving.Affine(scale, bias - mean * scale)


def _activation(kind: str) -> Callable[[str, nn.Module], serving.Step]:
    return lambda name, module: serving.Activation(kind)


def _max_pool(name: str, module: nn.MaxPool2d) -> serving.Step:
    for option, usual in (("padding", 0), ("dilation", 1), ("ceil_mode", False), ("return_indices", False)):
        if getattr(module, option) not in (usual, (usual, usual)):
            raise _unknown(name, module, option, getattr(module, option))
    return serving.MaxPool(_pair(module.kernel_size), _pair(module.stride))


def _average_pool(name: str, module: nn.AvgPool2d) -> serving.Step:
    for option, usual in (("padding", 0), ("ceil_mode", False), ("divisor_override", None)):
        if getattr(module, option) not in (usual, (usual, usual)):
            raise _unknown(name, module, option, getattr(module, option))
    return serving.AveragePool(_pair(module.kernel_size), _pair(module.stride))


def _global_average(name: str, module: nn.AdaptiveAvgPool2d) -> serving.Step:
    if module.output_size not in (1, (1, 1)):
        raise _unknown(name, module, "output_size", module.output_size)
    return serving.GlobalAverage()


def _flatten(name: str, module: nn.Flatten) -> serving.Step:
    if (module.start_dim, module.end_dim) not in ((1, -1), (1, 3)):
        raise _unknown(name, module, "start_dim, end_dim", (module.start_dim, module.end_dim))
    return serving.Flatten()


def _pair(size: Any) -> tuple[int, int]:
    first, second = size if isinstance(size, tuple) else (size, size)
    return first, second


def _unknown(name: str, module: nn.Module, option: str, value: object) -> Exception:
    return ValueError(f"module {name!r}, {type(module).__name__}, has {option}={value!r}, which export cannot keep.")


STEPS: dict[type[nn.Module], Callable[[str, Any], serving.Step]] = {
    SparseLinear: _sparse_linear,
    SparseConv2d: _sparse_conv,
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.ReLU: _activation("relu"),
    nn.LeakyReLU: lambda name, module: serving.Activation("leaky_relu", module.negative_slope),
    nn.Tanh: _activation("tanh"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.SiLU: _activation("silu"),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _global_average,
    nn.Flatten: _flatten,
}
