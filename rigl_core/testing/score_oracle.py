"""A slow implementation of every method's scores, memory and grown weights after the contract.

It uses floating numbers of the layers' precision only for scores that are such numbers by the contract.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe
from rigl_core.testing import oracle


def precision_of(dtype: str) -> Any:
    """The precision in which scores and momentum of layers of this dtype are computed."""
    return np.float64 if dtype == "float64" else np.float32


@dataclass
class LayerState:
    """A layer before an update: flat lists of numbers, its active positions and its planned active count.

    Attributes:
        dtype: the dtype of the layer's weights and gradients.
    """

    layer: Layer
    weight: Sequence[float]
    gradient: Sequence[float]
    momentum: Sequence[float]
    sign: Sequence[float]
    mask: set[int]
    target: int
    dtype: str = "float32"

    @property
    def real(self) -> Any:
        """The precision that scores are computed in: np.float64, or np.float32 also for 16-bit layers."""
        return precision_of(self.dtype)

    @property
    def everything(self) -> range:
        """All positions."""
        return range(self.layer.size)


def drop_and_grow(recipe: Recipe, state: LayerState, number: int) -> tuple[list[float], list[float]]:
    """Drop scores and grow scores. Random grow scores use the key, random drop scores its halves in swapped order."""
    key = oracle.random_key(recipe.seed, state.layer.name, number)
    grow = [] if recipe.grow is None else _score(recipe.grow.name, recipe.grow.parameter, state, key)
    return _score(recipe.drop.name, recipe.drop.parameter, state, key[::-1]), grow


def _score(name: str, parameter: float | None, state: LayerState, key: Any) -> list[float]:
    def magnitudes(values: Sequence[float], dtype: str) -> list[float]:
        return [oracle.magnitude(float(x), dtype) for x in values]

    real, wide = state.real, np.dtype(state.real).name
    weights, gradients = magnitudes(state.weight, state.dtype), magnitudes(state.gradient, state.dtype)
    if name in ("magnitude", "magnitude_by_sign"):
        return weights
    if name == "gradient":
        return gradients
    if name in ("gradient_by_output", "gradient_by_input"):
        return _relative(gradients, units_of(state.layer, name.rpartition("_")[2]), real)
    if name == "momentum":
        return magnitudes(state.momentum, wide)
    if name == "random":
        return list(map(float, oracle.random_scores(key, state.layer.size)))
    if name == "saliency":
        return magnitudes([float(real(w) * real(g)) for w, g in zip(weights, gradients, strict=True)], wide)
    if name == "magnitude_and_gradient":
        products = magnitudes([float(real(g) * real(parameter)) for g in gradients], wide)
        return [float(real(w) + real(p)) for w, p in zip(weights, products, strict=True)]
    if name == "sign":  # a weight that counts as 0 has no other sign
        signed = zip(state.weight, weights, state.sign, strict=True)
        return [float(not (counts and (w > 0 > s or w < 0 < s))) for w, counts, s in signed]
    raise KeyError(name)


def units_of(layer: Layer, side: str) -> list[list[int]]:
    """The flat positions of each output, or of each input, in each slice."""
    found: dict[Any, list[int]] = {}
    for i, place in enumerate(product(*map(range, layer.shape))):
        own, within = place_in_slice(layer, place)
        axes = layer.out_axes if side == "output" else layer.in_axes
        found.setdefault((own, tuple(within[axis] for axis in axes)), []).append(i)
    return list(found.values())


def place_in_slice(layer: Layer, place: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The slice of a place in the layer's array, and the place as counted from the slice's beginning."""
    if not layer.fused:
        return tuple(place[axis] for axis in layer.stacked), place
    axis, parts = layer.fused
    part, within = divmod(place[axis], layer.shape[axis] // parts)
    return (*(place[i] for i in layer.stacked), part), (*place[:axis], within, *place[axis + 1 :])


def _relative(scores: Sequence[float], units: Sequence[Sequence[int]], real: Any) -> list[float]:
    """Scores divided by the largest one of their unit (rule M10)."""
    result = list(scores)
    for unit in units:
        largest = max(scores[i] for i in unit)
        reciprocal = oracle.magnitude(float(real(1) / real(largest or 1)), np.dtype(real).name)
        for i in unit:
            result[i] = oracle.magnitude(float(real(scores[i]) * real(reciprocal)), np.dtype(real).name)
    return result


def next_momentum(momentum: Any, gradient: Any, decay: float, real: Any = np.float32) -> Any:
    """The momentum after a gradient: each product is rounded before the sum, and subnormal numbers count as 0."""
    old, new = (_normal(x) for x in (real(decay) * momentum, real(1 - decay) * gradient.astype(real)))
    return _normal(old + new)


def _normal(x: Any) -> Any:
    """The numbers, with 0 in place of subnormal ones."""
    return np.where(np.abs(x) >= np.finfo(x.dtype).smallest_normal, x, 0).astype(x.dtype)


def random_signs(seed: int, layer: str, number: int, size: int) -> list[float]:
    """Random signs, 1 or -1: the lowest bits of the random scores by the key with its halves swapped."""
    scores = oracle.random_scores(oracle.random_key(seed, layer, number)[::-1], size)
    return [1.0 if score & 1 else -1.0 for score in scores]


def noise(seed: int, layer: str, step: int, size: int) -> list[float]:
    """Noise for each connection: sums of four uniform 16-bit numbers, scaled to mean 0 and standard deviation 1."""
    first, second = oracle.random_key(seed, layer, -2)
    draws = [
        oracle.random_scores((first ^ constant, second ^ step), size)
        for constant in (0, 0x1B873593, 0x2545F491, 0x5BD1E995)
    ]
    return [
        (sum(score >> 15 for score in scores) - 2**17) / (2**16 / math.sqrt(3)) for scores in zip(*draws, strict=True)
    ]


def grown_values(recipe: Recipe, state: LayerState, number: int, initial: Sequence[float]) -> list[float]:
    """The weight that each connection starts with if it grows."""
    grown: Any = recipe.grown
    if grown.kind == "initial":
        return list(initial)
    if grown.kind == "random":
        scores = oracle.random_scores(oracle.random_key(recipe.seed, state.layer.name, number)[::-1], state.layer.size)
        return [float(np.float32((score >> 7) - 2**23) * np.float32(grown.scale / 2**23)) for score in scores]
    if grown.kind == "gradient_step":
        return [float(np.float32(g) * np.float32(-grown.size)) for g in state.gradient]
    return [0.0] * state.layer.size
