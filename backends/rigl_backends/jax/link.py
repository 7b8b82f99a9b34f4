"""What a training and the products of its layers share: the kernels, and the samples of the coming update."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rigl_core.adapter import (
    ConvolutionProducts,
    Convolutions,
    Index,
    Products,
    available_threads,
    best_convolutions,
    best_kernels,
)

if TYPE_CHECKING:
    from rigl_backends.jax.active_weight import Layout

Floats = npt.NDArray[np.float32]
Sample = tuple[Any, ...]
"""What the dense gradient of one use of a layer is made of: see `Products` and `ConvolutionProducts`."""
EXACT = 1e-4
"""How far a gradient may be from the sum of its samples' gradients, relative to its largest number: rounding."""


@dataclass(frozen=True)
class _Use:
    """One use of a layer.

    Attributes:
        call: the number of the use, as JAX traced it.
        parts: what the dense gradient is made of.
        gradient: of the active weights.
    """

    call: int
    parts: Sample
    gradient: Floats


class Link:
    """It compares by identity, and is part of the structure of parameters that JAX knows while it traces.

    Attributes:
        kernels: make the products.
        threads: the threads to work with.
    """

    def __init__(self) -> None:
        self.kernels, self.threads = best_kernels(), available_threads()
        self._samples: dict[str, tuple[float, list[_Use]]] = {}
        self._calls = itertools.count()

    def called(self) -> int:
        """A layer is used, or traced: the number of the use."""
        return next(self._calls)

    @functools.cached_property
    def convolutions(self) -> Convolutions:
        """The kernels of convolutions, which are compiled if there are convolutions."""
        return best_convolutions()

    def see(self, name: str, step: float, call: int, sample: Sample, gradient: Floats) -> None:
        """Keep the sample of a gradient, if an update may read it, and forget those of other steps.

        Args:
            name: the layer's.
            step: the last of the layer's marks.
            call: the number of the use.
            sample: what the dense gradient is made of; its arrays are copied.
            gradient: of the active weights.
        """
        if step == 0:
            self._samples.pop(name, None)
            return
        known, samples = self._samples.get(name, (step, []))
        own = samples if known == step else []
        parts = tuple(part.copy() if isinstance(part, np.ndarray) else part for part in sample)
        own.append(_Use(call, parts, gradient.copy()))
        self._samples[name] = step, own

    def gradient(self, layout: Layout, index: Index, active: Floats) -> Products:
        """The dense gradient of a step.

        Samples of other gradients, such as those of an evaluation, are not taken: the active gradients of the samples
        must add up to the given one, times some factor.

        Args:
            layout: the layer's.
            index: where its active weights are.
            active: the gradient of these, which ``update`` was given.

        Raises:
            ValueError: if no samples fit.
        """
        uses, factor = _fitting(self._samples.get(layout.name, (0, []))[1], active, layout.name)
        samples = [one.parts for one in _in_order(uses)]
        gradient = self._products(active, samples, index, of_convolution=layout.kernel is not None)
        return gradient if factor == 1 else _with_active(gradient * factor, active)

    def _products(self, active: Floats, samples: list[Any], index: Index, *, of_convolution: bool) -> Products:
        kernels, threads = self.kernels, self.threads
        if not of_convolution:
            return Products(active, samples, inputs_first=index.inputs_first, kernels=kernels, threads=threads)
        return ConvolutionProducts(
            active, samples, index=index, kernels=kernels, convolutions=self.convolutions, threads=threads
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Link:
        return self

    def __reduce__(self) -> tuple[type[Link], tuple[()]]:
        return Link, ()


def _fitting(samples: Sequence[_Use], active: Floats, name: str) -> tuple[Sequence[_Use], float]:
    """The latest samples whose gradients add up to this one, up to a factor, and the factor."""
    largest = float(np.abs(active).max(initial=0))
    if largest == 0 or not np.isfinite(active).all():
        return samples, 1
    total = np.zeros_like(active)
    for start in range(len(samples) - 1, -1, -1):
        total += samples[start].gradient
        square = float(np.vdot(total, total))
        factor = float(np.vdot(total, active)) / square if square else 0.0
        if np.abs(active - np.float32(factor) * total).max(initial=0) <= EXACT * largest:
            return samples[start:], _exactly(factor)
    raise ValueError(
        f"the gradient of {name!r} is not that of its latest products, up to a factor, so the dense gradient that this "
        "step's update reads is not known: give update() the gradient as jax.grad made it, or a dense array, or use "
        "storage='masks' for this layer."
    )


def _in_order(samples: Sequence[_Use]) -> list[_Use]:
    """Micro-batch after micro-batch, and in each use after use, though XLA may compute their gradients in any order."""
    rounds: list[list[_Use]] = []
    for sample in samples:
        if not rounds or any(other.call == sample.call for other in rounds[-1]):
            rounds.append([])
        rounds[-1].append(sample)
    return [sample for one in rounds for sample in sorted(one, key=lambda sample: sample.call)]


def _exactly(factor: float) -> float:
    """A factor without the rounding of the sums that tell it: of a mean it is one over a whole number."""
    parts = round(1 / factor) if 0 < factor < 2 else 0
    return 1 / parts if parts and abs(parts * factor - 1) < EXACT else factor


def _with_active(gradient: Products, active: Floats) -> Products:
    gradient.active = active
    return gradient
