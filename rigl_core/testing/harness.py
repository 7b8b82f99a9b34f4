"""The harness of a backend, through which the conformance suite runs it. The adapter's author writes it.

All arrays that go in and out are NumPy arrays, so the suite knows no framework. bfloat16 numbers are passed in float32
arrays; a harness converts them.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Namespace
from rigl_core.arrays.random import random_scores
from rigl_core.model.layers import Layer
from rigl_core.parts.criteria import Criterion
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.plan import Counts
from rigl_core.recipe import Recipe
from rigl_core.step.update import move_pool
from rigl_core.testing.limits import Limits, NotOffered
from rigl_core.testing.session import Array, Mask, OptimizerSpec, Session, Setup

__all__ = ["Array", "Harness", "Mask", "OptimizerSpec", "Session", "Setup"]


class Harness(Limits, ABC):
    """A backend under test: a subclass says how to make its arrays, and how its users train.

    Attributes:
        name: the backend's name in the table of results.
        dtypes: the floating dtypes that it supports, out of float16, bfloat16, float32, float64.
        modes: the ways in which its code can run: ``"eager"``, ``"compiled"``, or others.
        unused_layers: whether the gradient of a parameter can be missing.
        slow_modes: the modes in which a case takes long, so that properties run on fewer cases.
        xp: the adapter's namespace; None if it has none, so that nothing but whole trainings can be tested.
        session: starts a `Session`: sparsifies the parameters of a `Setup`, under their names, with the adapter's
            ``sparsify``.
    """

    name: str
    dtypes: Sequence[str]
    modes: Sequence[str]
    unused_layers: bool
    slow_modes: Sequence[str] = ()
    xp: Namespace | None = None
    session: Callable[[Setup], Session]

    @abstractmethod
    def to_backend(self, array: Array, dtype: str, /) -> Any:
        """The framework's array of these values; ``dtype`` is one of ``dtypes``, ``"bool"`` or ``"int32"``."""

    @abstractmethod
    def to_numpy(self, array: Any, /) -> Array:
        """A copy of the framework's array; bfloat16 becomes float32."""

    def to_scalar(self, number: int, /) -> Any:
        """An int32 number as the adapter gives it to the core: a Python integer, or a scalar that can be traced."""
        return number

    def in_mode(self, function: Callable[..., Any], mode: str, /) -> Callable[..., Any]:
        """The function as it runs in this mode, such as compiled; it takes arrays of the framework."""
        return function

    def settings(self, dtype: str, /) -> AbstractContextManager[Any]:
        """A context with the framework's settings that arrays of this dtype need."""
        return nullcontext()

    def start(
        self,
        params: Mapping[str, Array],
        layers: Sequence[Layer],
        recipe: Recipe,
        optimizer: OptimizerSpec,
        *,
        dtype: str = "float32",
        mode: str = "eager",
        scores: Mapping[str, Array] | None = None,
        dense_steps: Sequence[Mapping[str, Array]] = (),
        micro_batches: int = 1,
        initial: Mapping[str, Mask] | None = None,
    ) -> Session:
        """Start a session; the arguments are those of `Setup`. Raises `NotOffered` for what the library lacks."""
        self.check_offered(recipe, tuple(layers))
        setup = Setup(params, layers, recipe, optimizer, dtype, mode, scores, dense_steps, micro_batches, initial)
        for ability in setup.needs:
            self.check_has(ability)
        return self.session(setup)

    def updated_mask(
        self, weight: Array, gradient: Array, mask: Mask, keep: int, grow: int, *, dtype: str, mode: str
    ) -> Mask:
        """RigL's update of one layer, in the framework.

        Args:
            weight: flat.
            gradient: flat.
            mask: flat bool array.
            keep: the number of connections to keep.
            grow: the number of connections to grow.
            dtype: the dtype of weight and gradient in the framework.
            mode: how the code runs.

        Returns:
            The new mask.
        """
        return self._run(_compiled(self, mode, _updated_mask), dtype, weight, gradient, mask, keep, grow)

    def scores(self, criterion: Criterion, weight: Array, gradient: Array, *, dtype: str, mode: str) -> Array:
        """A criterion's scores for flat arrays, computed in the framework."""
        return self._run(_compiled(self, mode, _scores, criterion), dtype, weight, gradient)

    def random_scores(self, key: tuple[int, int], size: int, *, mode: str) -> npt.NDArray[np.int32]:
        """`rigl_core.arrays.random.random_scores` of the indices 0 to size - 1."""
        return self._run(_compiled(self, mode, _random_scores), "int32", np.arange(size, dtype=np.int32), *key)

    def _run(self, function: Callable[..., Any], dtype: str, *arguments: Array | int) -> Array:
        if self.xp is None:
            raise NotOffered(f"{self.name} has no function for a single update of given arrays.")
        with self.settings(dtype):
            return self.to_numpy(function(*(self._own(argument, dtype) for argument in arguments)))

    def _own(self, argument: Array | int, dtype: str) -> Any:
        if isinstance(argument, int):
            return self.to_scalar(argument)
        return self.to_backend(argument, dtype if argument.dtype.kind == "f" else argument.dtype.name)


@functools.cache
def _compiled(harness: Harness, mode: str, function: Callable[..., Any], *constants: Any) -> Callable[..., Any]:
    """A function of the core in this mode; cached, so that the framework compiles it once."""
    return harness.in_mode(functools.partial(function, harness.xp, *constants), mode)


def _updated_mask(xp: Namespace, weight: Any, gradient: Any, mask: Any, keep: Any, grow: Any) -> Any:
    (updated,) = move_pool(_RIGL, [Connections(weight, gradient)], [mask], Counts(keep, grow), xp=xp)
    return updated.mask


def _scores(xp: Namespace, criterion: Criterion, weight: Any, gradient: Any) -> Any:
    return criterion.score(Connections(weight, gradient), xp)


def _random_scores(xp: Namespace, indices: Any, first: Any, second: Any) -> Any:
    return random_scores((first, second), indices, xp=xp)


_RIGL = Recipe(schedule=UpdateSchedule(end=1)).rule
