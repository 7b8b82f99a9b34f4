"""Hypothesis strategies: arrays and trainings that reveal bugs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rigl_core.methods import SET, RigL
from rigl_core.model.layers import Layer
from rigl_core.parts.drop_fractions import Cosine
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.recipe import Recipe
from rigl_core.testing.harness import Array, Mask, OptimizerSpec
from rigl_core.testing.oracle import SMALLEST_NORMAL

_NUMPY_DTYPE = {"float16": np.float16, "bfloat16": np.float32, "float32": np.float32, "float64": np.float64}
_ORDINARY = (0.0, 0.25, -0.25, 0.5, 1.0, -1.0, 3.0, 2.0**-13, -(2.0**13))


class Case:
    """A case that prints as Python code: paste it into a test after ``from rigl_core.testing.paste import *``."""

    def __repr__(self) -> str:
        with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
            fields = {name: repr(value) for name, value in vars(self).items()}
        if isinstance(recipe := getattr(self, "recipe", None), Recipe):
            fields["recipe"] = f"Recipe.from_dict({recipe.to_dict()})"
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in fields.items())})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # what Hypothesis calls
        printer.text(repr(self))


@dataclass(frozen=True, repr=False)
class Update(Case):
    """One update of one layer: flat arrays, the mask, and the number ``k`` of connections that move."""

    weight: Array
    gradient: Array
    mask: Mask
    k: int
    dtype: str

    @property
    def keep(self) -> int:
        """The number of connections that the update keeps."""
        return int(self.mask.sum()) - self.k


def values(dtype: str, size: int, *, special: bool) -> st.SearchStrategy[Array]:
    """Arrays with many ties.

    With ``special``, they also hold NaN, infinities, -0 and numbers near the smallest normal one; some arrays hold only
    zeros and such small numbers.
    """
    tiny = SMALLEST_NORMAL[dtype]
    pools: list[tuple[float, ...]] = [_ORDINARY]
    if special:
        small = (-0.0, tiny, -tiny, tiny / 2, -tiny / 4)
        pools = [(*_ORDINARY, float("nan"), float("inf"), float("-inf"), *small), (0.0, *small)]
    lists = [st.lists(st.sampled_from(pool), min_size=size, max_size=size) for pool in pools]
    return st.one_of(lists).map(lambda numbers: np.array(numbers, _NUMPY_DTYPE[dtype]))


@st.composite
def updates(draw: st.DrawFn, dtypes: Sequence[str], *, special: bool = False, max_size: int = 24) -> Update:
    """Any update: any size from 0 to ``max_size``, any density and any drop count."""
    dtype = draw(st.sampled_from(list(dtypes)))
    size = draw(st.integers(0, max_size))
    mask = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), np.bool_)
    weight = draw(values(dtype, size, special=special))
    gradient = draw(values(dtype, size, special=special))
    return Update(weight, gradient, mask, draw(st.integers(0, int(mask.sum()))), dtype)


SILENCES = ("missing", "zero", "inactive")
"""The gradient of a layer without information: none; 0 or subnormal; or 0 at active weights, and 1 at the others."""


@dataclass(frozen=True, repr=False)
class Training(Case):
    """A short training with given gradients.

    Attributes:
        quiet: a layer without information, by its name, in the steps of a range.
        silence: what its gradient is in these steps, one of `SILENCES`.
    """

    params: dict[str, Array]
    layers: tuple[Layer, ...]
    recipe: Recipe
    optimizer: OptimizerSpec
    steps: int
    seed: int
    scores: dict[str, Array] | None = None
    quiet: tuple[str, range] = ("", range(0))
    silence: str = "zero"

    @property
    def schedule(self) -> UpdateSchedule:
        """The recipe's schedule, which must not be None."""
        assert self.recipe.schedule is not None
        return self.recipe.schedule

    def gradients(self, step: int) -> dict[str, Array]:
        """The dense gradients of one step, by parameter name; in half of the steps they have many ties."""
        rng = np.random.default_rng((self.seed, step))
        tied = rng.random() < 0.5
        gradients: dict[str, Array] = {}
        for name, param in self.params.items():
            numbers = rng.choice(_ORDINARY[:7], param.shape) if tied else rng.normal(size=param.shape)
            gradients[name] = numbers.astype(param.dtype)
        if step in self.quiet[1]:
            name, param = self.quiet[0], self.params[self.quiet[0]]
            tiny = np.finfo(param.dtype).smallest_subnormal
            gradients[name] = rng.choice([0, -0.0, tiny], param.shape).astype(param.dtype)
        return gradients


SGD = OptimizerSpec("sgd", lr=0.0625, momentum=0.9, weight_decay=0.01)
CENTERED = OptimizerSpec("sgd", lr=0.0625, momentum=0.9, centered=True)
STILL = OptimizerSpec("sgd", lr=0.0, momentum=0.9)
ADAM = OptimizerSpec("adam", lr=0.01, weight_decay=0.1)
ADAGRAD = OptimizerSpec("adagrad", lr=0.0625)


@st.composite
def trainings(
    draw: st.DrawFn,
    *,
    method: str = "RigL",
    optimizers: Sequence[OptimizerSpec] = (SGD, ADAM),
    dtype: str = "float32",
) -> Training:
    """Two sparse layers and a dense vector, under any schedule, sparsity and optimizer."""
    shapes = [(draw(st.integers(1, 7)), draw(st.integers(2, 7))) for _ in range(2)]
    layers = tuple(Layer(f"fc{i}.weight", shape, in_axes=(1,), out_axes=(0,)) for i, shape in enumerate(shapes))
    begin = draw(st.integers(0, 2))
    schedule = UpdateSchedule(begin=begin, end=begin + draw(st.integers(1, 7)), every=draw(st.integers(1, 3)))
    make = {"RigL": RigL, "SET": SET}[method]
    recipe = make(
        draw(st.sampled_from([0.5, 0.0, 0.3, 0.7, 0.9])),  # a property with one case draws the first
        schedule=schedule,
        drop_fraction=Cosine(draw(st.sampled_from([0.3, 0.5, 1.0]))),
        seed=draw(st.integers(0, 2**32)),
    )
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    params = {layer.name: rng.normal(size=layer.shape) for layer in layers}
    if draw(st.booleans()):  # ties, and weights that are exactly zero
        params = {name: np.round(param) for name, param in params.items()}
    params["fc0.bias"] = rng.normal(size=(5,))
    typed = {name: param.astype(_NUMPY_DTYPE[dtype]) for name, param in params.items()}
    optimizer = draw(st.sampled_from(list(optimizers)))
    return Training(typed, layers, recipe, optimizer, schedule.end + 2, seed)
